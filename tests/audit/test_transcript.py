"""That a transcript is all of what happened, changes nothing, and is refused when it is damaged."""

import gc
import hashlib
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import syft
import torch

import smpc.semi2k
from smpc.audit import resample
from smpc.audit.messages import MEANINGS, NAMES, OTHERWISE, split_semi2k
from smpc.audit.openings import Follower, keys
from smpc.audit.transcript import (
    OWNERS,
    PROVIDER,
    WORKERS,
    Recorder,
    Transcript,
)
from smpc.semi2k import noise, storage, wire
from smpc.semi2k.network import Network
from smpc.semi2k.owner import Owner
from smpc.semi2k.provider import Provider
from smpc.semi2k.randomness import Stream, new_key
from smpc.semi2k.wire import pack, unpack

# Of randomness; what is drawn from `smpc.semi2k.randomness` goes through a door.
SOURCES = r"urandom|(np|numpy)\.random|torch\.rand|(import|from) (random|secrets)\b"
DOORS = (
    (Network, "carry"),
    (Owner, "share"),
    (storage, "read"),
    (storage, "write"),
    (syft.VirtualWorker, "_send_msg"),
    (Stream, "words"),
    (noise, "discrete_gaussian"),
    (os, "urandom"),
    (np.random, "randint"),
)


def sent(transcript, party):
    """What a party said, message by message, and to whom."""
    view = transcript.view(party)
    return [(entry.receiver, fields) for entry, fields in view.messages(sender=party)]


def said(answers):
    """Likewise, of an end's answers."""
    return [(receiver, unpack(message)) for receiver, message in answers]


def dealt(view):
    """The answers of a provider's end that is made of the provider's view."""
    end, answers = Provider(view.party, view.roster), []
    with keys(fields["key"] for _, fields in view.messages(sender=view.party, name="key")):
        for entry, fields in view.messages(receiver=view.party):
            answers += end.receive(entry.sender, pack(**fields))
    return answers


@pytest.mark.parametrize("n_workers", [2, 3])
def test_a_party_does_nothing_that_does_not_follow_from_its_view(recorded, n_workers):
    """An end made of the messages that it received alone gives every answer, byte by byte."""
    transcript = recorded(n_workers=n_workers)
    for worker in transcript.roster.workers:
        answers = said(Follower(transcript.view(worker)).answers)
        assert len(answers) > 20
        assert answers == sent(transcript, worker)
    answers = said(dealt(transcript.view(PROVIDER)))
    verbs = [fields["do"] for _, fields in answers]
    assert {verb: verbs.count(verb) for verb in verbs} == {
        "key": n_workers + 1,
        "deal_input": 6,
        "deal": len([e for e in transcript.entries if (e.name, e.receiver) == ("run", PROVIDER)]),
    }
    assert answers == sent(transcript, PROVIDER)


@pytest.fixture
def resampled(parties, tmp_path):
    """A recorded run of `resample`'s computation, which saves and loads a checkpoint."""
    path = tmp_path / "run.jsonl"
    secrets, _ = resample.draw(np.random.default_rng())
    resample.record(path, WORKERS, {"worker1": new_key()}, secrets)
    return Transcript(path)


def test_following_a_worker_needs_no_file_and_writes_none(resampled, tmp_path):
    """What it read from its checkpoint is in its view."""
    for worker in WORKERS:
        shutil.rmtree(tmp_path / worker)
        answers = Follower(resampled.view(worker)).answers
        assert said(answers) == sent(resampled, worker)
        assert not (tmp_path / worker).exists()


def test_a_recorded_run_has_every_kind_of_message(resampled):
    """But one: it is recorded until no run was made anew; and but what is said on hosts alone. Each
    of its arrays has a meaning."""
    grammar = [message for verbs in wire.GRAMMAR.values() for message in verbs.items()]
    names = {entry.name for entry in resampled.entries if entry.kind == "message"}
    on_hosts = {"public", "share", "revealed", "read"}
    assert names == {verb for verb, _ in grammar} - {"anew", *on_hosts}
    fields = {(verb, field) for verb, fields in grammar for field in fields}
    assert set(MEANINGS) | set(NAMES) <= fields


def test_what_is_recorded_is_what_was_said(recorded, monkeypatch):
    messages, carry = [], Network.carry

    def spy(self, sender, receiver, message):
        messages.append((sender, receiver, len(message)))
        return carry(self, sender, receiver, message)

    monkeypatch.setattr(Network, "carry", spy)
    transcript = recorded()
    entries = [entry for entry in transcript.entries if entry.kind == "message"]
    assert [(entry.sender, entry.receiver, entry.bytes) for entry in entries] == messages
    owners = [entry for entry in entries if OWNERS in (entry.sender, entry.receiver)]
    assert {entry.name for entry in owners} == {"input", "key"}


def streams_of(session):
    """Each stream of a session's -> whose it is."""
    ends, roster = session.network.ends, session.roster
    owned = {ends[OWNERS]._stream: OWNERS}
    for worker in roster.workers:
        own = ends[worker]._stream, *ends[worker]._input_streams.values()
        owned |= dict.fromkeys(own, worker)
    dealer = ends[roster.provider]
    every = (*dealer._streams.values(), *dealer._inputs.values())
    return owned | dict.fromkeys(every, roster.provider)


def test_what_is_recorded_is_what_was_drawn(recorded, monkeypatch):
    """Word by word, at which address, and by whom: each stream is one party's."""
    drawn, native = [], Stream.words

    def words(self, address, n):
        drawn.append((self, address, native(self, address, n)))
        return drawn[-1][2]

    monkeypatch.setattr(Stream, "words", words)
    transcript = recorded()
    (parties,) = syft.local_worker.crypto_store.semi2k.values()
    whose = streams_of(parties.session)
    views = {party: transcript.view(party) for party in transcript.parties}
    entries = [e for e in transcript.entries if (e.kind, e.name) == ("drawn", "words")]
    assert [entry.sender for entry in entries] == [whose[stream] for stream, *_ in drawn]
    assert set(whose.values()) == {entry.sender for entry in entries}
    for entry, (_, address, array) in zip(entries, drawn, strict=True):
        assert np.array_equal(views[entry.sender].value(entry), array)
        assert entry.fields == {"address": [*address]}


def test_what_the_operating_system_gives_is_recorded_where_an_end_asks_for_it(recorded):
    """The keys, and nothing that was asked for by no party."""
    transcript = recorded(after_sharing=lambda: os.urandom(32))
    view = transcript.view(PROVIDER)
    given = [entry for entry in transcript.entries if entry.name == "urandom"]
    keys = [fields["key"] for _, fields in view.messages(sender=PROVIDER, name="key")]
    assert [view.value(entry).tobytes() for entry in given] == keys
    assert len(keys) == 3
    assert {(entry.kind, entry.dtype) for entry in given} == {("drawn", "uint8")}


def test_a_file_is_recorded_as_it_is_on_the_disk(resampled, tmp_path):
    for worker in WORKERS:
        view = resampled.view(worker)
        (written,), (kept,) = view.arrays("written"), view.arrays("kept")
        content = (tmp_path / worker / "1.shares").read_bytes()
        assert view.value(written).tobytes() == content
        assert written.name == "1.shares"
        digest = hashlib.sha256(content).hexdigest()
        assert kept.fields == {"file": "1.shares", "sha256": digest}
        assert view.value(kept).tobytes() in content


def test_a_view_holds_nothing_of_another(recorded):
    transcript = recorded()
    worker1, worker2 = (transcript.view(name) for name in ("worker1", "worker2"))
    with pytest.raises(PermissionError, match="not in the view of worker1"):
        worker1.value(worker2.arrays("drawn")[0])
    assert {entry.kind for entry in transcript.view("me").arrays()} == {"public", "revealed"}


def test_without_a_path_nothing_is_recorded(parties, share):
    before = [getattr(*door) for door in DOORS]
    recorder = Recorder(None, {})
    recorder.start()
    assert [getattr(*door) for door in DOORS] == before
    recorder.save()


def test_a_recorder_leaves_the_doors_as_they_were(recorded):
    before = [getattr(*door) for door in DOORS]
    recorded()
    assert [getattr(*door) for door in DOORS] == before


def test_there_is_no_way_around_the_doors():
    """One module of semi2k's draws, and one hands messages over."""
    modules = list(pathlib.Path(smpc.semi2k.__file__).parent.rglob("*.py"))
    assert {"randomness.py", "network.py", "session.py"} <= {path.name for path in modules}
    for path in modules:
        text = path.read_text()
        if path.name != "randomness.py":
            assert not re.search(SOURCES, text), path
        if path.name != "network.py":
            assert not re.search(r"\.receive\(", text)


def test_an_array_without_a_meaning_stops_the_run():
    with pytest.raises(KeyError, match="secret"):
        split_semi2k(pack("open", secret=bytes(8)))


def test_recording_leaves_torchs_generator_alone(recorded):
    """Masks drawn by syft's protocols are the same, recorded or not."""
    states = []
    for record in (True, False):
        torch.manual_seed(5)
        recorder = Recorder("nowhere.jsonl" if record else None, {"protocol": "snn"})
        recorder.start()
        torch.randint(0, 9, (4,))
        np.random.seed(5)
        np.random.randint(0, 9)
        torch.zeros(3, dtype=torch.long).random_()
        recorder.stop()
        states.append((torch.get_rng_state().tolist(), np.random.get_state()[2]))
    assert states[0] == states[1]


def test_recording_changes_nothing_that_the_parties_hold(parties, share, tmp_path):
    """Of syft's messages, too: the same shares and as many objects, recorded or not."""
    everyone = (*parties.workers, parties.crypto_provider, syft.local_worker)
    held = []
    for path in (None, tmp_path / "run.jsonl"):
        torch.manual_seed(5)
        gc.collect()
        before = [len(party.object_store._objects) for party in everyone]
        recorder = Recorder(path, {"protocol": "snn"})
        recorder.start()
        y = share([1.0, -2.0, 3.0], "snn").relu()
        recorder.save()
        pointers = y.child.child.child.child
        shares = [
            worker.object_store.get_obj(pointers[worker.id].id_at_location).tolist()
            for worker in parties.workers
        ]
        gc.collect()
        after = [len(party.object_store._objects) for party in everyone]
        held.append((shares, [b - a for a, b in zip(before, after, strict=True)]))
        del y, pointers
    assert held[0] == held[1]


def test_a_message_that_is_packed_otherwise(recorded):
    """With a number in more bytes than it needs: the same fields, and something beside them."""
    message = pack("anew", run=1, attempt=0)
    assert split_semi2k(message)[1] == {"do": "anew", "run": 1, "attempt": 0}
    longer = message.replace(b"\xa3run\x01", b"\xa3run\xcc\x01")
    assert unpack(longer) == unpack(message)
    assert set(split_semi2k(longer)[1]) == {"do", "run", "attempt", OTHERWISE}


def test_a_message_that_nobody_may_say(recorded, monkeypatch):
    """Is noted as it is, whatever its receiver makes of it."""
    native = Network.carry

    def carry(network, sender, receiver, message):
        if message != b"a share" and unpack(message)["do"] == "open":
            with pytest.raises(wire.Refused):
                network.carry(sender, receiver, b"a share")
        return native(network, sender, receiver, message)

    monkeypatch.setattr(Network, "carry", carry)
    transcript = recorded()
    said = transcript.view("worker1").arrays("value", sender="worker1")
    assert {transcript.view("worker1").value(e).tobytes() for e in said} == {b"a share"}
