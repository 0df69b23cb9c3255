"""That a transcript is all of what happened, changes nothing, and is refused when it is damaged."""

import gc
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import syft
import torch

import smpc.semi2k
from smpc.audit import PROGRAM, resample
from smpc.audit import __main__ as command
from smpc.audit.messages import MEANINGS, NAMES, split_semi2k
from smpc.audit.openings import Dealer, Follower
from smpc.audit.transcript import (
    OWNERS,
    PROVIDER,
    VERSION,
    WORKERS,
    Recorder,
    Transcript,
    TranscriptError,
    values_of,
)
from smpc.semi2k import storage, wire
from smpc.semi2k.network import Network
from smpc.semi2k.owner import Owner
from smpc.semi2k.randomness import Stream, new_key
from smpc.semi2k.wire import pack, unpack

# Of randomness; what is drawn from `smpc.semi2k.randomness` goes through a door.
SOURCES = r"urandom|(np|numpy)\.random|torch\.rand|(import|from) (random|secrets)\b"
DOORS = (
    (Network, "carry"),
    (Owner, "share"),
    (storage, "read"),
    (syft.VirtualWorker, "_send_msg"),
    (Stream, "words"),
    (np.random, "randint"),
)


def sent(transcript, party):
    """What a party said, message by message, and to whom."""
    view = transcript.view(party)
    return [(entry.receiver, fields) for entry, fields in view.messages(sender=party)]


def said(answers):
    """Likewise, of an end's answers."""
    return [(receiver, unpack(message)) for receiver, message in answers]


@pytest.mark.parametrize("n_workers", [2, 3])
def test_a_party_does_nothing_that_does_not_follow_from_its_view(recorded, n_workers):
    """An end made of the messages that it received alone gives every answer, byte by byte."""
    transcript = recorded(n_workers=n_workers)
    for worker in transcript.roster.workers:
        answers = said(Follower(transcript.view(worker)).answers)
        assert len(answers) > 20
        assert answers == sent(transcript, worker)
    answers = said(Dealer(transcript.view(PROVIDER)).answers)
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
    """Word by word, and by whom: each stream is one party's."""
    drawn, native = [], Stream.words

    def words(self, address, n):
        drawn.append((self, native(self, address, n)))
        return drawn[-1][1]

    monkeypatch.setattr(Stream, "words", words)
    transcript = recorded()
    (parties,) = syft.local_worker.crypto_store.semi2k.values()
    whose = streams_of(parties.session)
    views = {party: transcript.view(party) for party in transcript.parties}
    entries = [e for e in transcript.entries if (e.kind, e.name) == ("drawn", "words")]
    assert [entry.sender for entry in entries] == [whose[stream] for stream, _ in drawn]
    assert set(whose.values()) == {entry.sender for entry in entries}
    for entry, (_, array) in zip(entries, drawn, strict=True):
        assert np.array_equal(views[entry.sender].value(entry), array)


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


# ---- bad input


@pytest.fixture
def audit_fails(fails):
    """audit_fails(*arguments) -> the line on stderr of an audit that ends with status 2."""
    return lambda *arguments: fails(PROGRAM, lambda: command.main([*map(str, arguments)]))


@pytest.fixture
def written(recorded, tmp_path):
    """The path of a transcript."""
    recorded()
    return tmp_path / "run.jsonl"


def test_a_partys_view_is_printed(written, capsys):
    command.main(["--transcript", str(written), "--party", "worker1"])
    printed = capsys.readouterr().out
    title, *lines = printed.split("\n\n")[0].splitlines()
    assert title.split()[:4] == ["round", "sender", "receiver", "kind"]
    ends = {tuple(line.split()[1:4]) for line in lines}
    assert ends == {
        ("worker1", "worker1", "drawn"),
        ("crypto_provider", "worker1", "dealt"),
        ("owners", "worker1", "share"),
        ("me", "worker1", "public"),
        ("worker1", "worker2", "masked"),
        ("worker2", "worker1", "masked"),
        ("worker1", "me", "revealed"),
    }
    assert printed.strip().endswith("bytes.")


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-100])


def a_byte_changed(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def directory_changed(offset, value):
    """A byte of the first entry in a zip file's central directory."""

    def changed(path):
        content = bytearray(path.read_bytes())
        start = int.from_bytes(content[-6:-2], "little")
        content[start + offset] = value
        path.write_bytes(content)

    return changed


def header_changed(path):
    path.write_text(path.read_text().replace('"protocol": "semi2k"', '"protocol": "semi3k"', 1))


def not_a_transcript(path):
    path.write_text("<html>404</html>\n")


def binary(path):
    path.write_bytes(bytes(range(256)))


def of_another_version(path):
    header, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps(json.loads(header) | {"version": VERSION + 1}) + "\n" + rest)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, "damaged (wrong SHA-256)"),
        (a_byte_changed, "damaged"),
        (header_changed, "damaged (wrong SHA-256)"),
        (not_a_transcript, "is damaged, or no transcript"),
        (binary, "is damaged, or no transcript"),
        (of_another_version, f"of version {VERSION + 1}, not"),
        (pathlib.Path.unlink, "No such file"),
    ],
)
def test_a_damaged_transcript(written, audit_fails, damage, message):
    damage(written)
    assert message in audit_fails("--transcript", written, "--party", "worker1")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, "is damaged"),
        (a_byte_changed, "is damaged"),
        (not_a_transcript, "is damaged"),
        (directory_changed(8, 1), "is damaged"),  # the flag of what is encrypted
        (directory_changed(10, 14), "is damaged"),  # LZMA
        (directory_changed(10, 99), "is damaged"),  # a method that there is not
        (pathlib.Path.unlink, "is missing"),
    ],
)
def test_damaged_values(written, audit_fails, damage, message):
    damage(values_of(written))
    assert message in audit_fails("--transcript", written, "--party", "worker1")


def test_values_of_another_run(written, audit_fails):
    path = values_of(written)
    with np.load(path) as values:
        arrays = dict(values)
    arrays["sha256"] = np.array("0" * 64)
    np.savez(path.open("wb"), **arrays)
    assert "belongs to another transcript" in audit_fails(
        "--transcript", written, "--party", "worker1"
    )


def test_a_party_that_was_not_there(written, audit_fails):
    assert "no party worker3" in audit_fails("--transcript", written, "--party", "worker3")


def test_arguments_of_the_audit(audit_fails, tmp_path):
    assert "go together" in audit_fails("--party", "worker1")
    assert "unrecognized arguments" in audit_fails("--colour")
    (tmp_path / "file").write_text("")
    assert "--out" in audit_fails("--out", tmp_path / "file")


def test_a_run_that_fails_ends_the_audit(fails, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "SEED", -1)
    line = fails(PROGRAM, lambda: command.record("semi2k", tmp_path, 16, 2))
    assert line.endswith(
        "semi2k could not be run: train_encrypted.py: error: --seed -1: use 0 to 2^63 - 1\n"
    )


@pytest.mark.parametrize("path", ["", ".", "folder"])
def test_a_transcript_that_is_a_folder(tmp_path, monkeypatch, path):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TranscriptError, match=r"--transcript (\.|folder): a folder; name a file"):
        Recorder(path, {})
    assert [x.name for x in tmp_path.rglob("*")] == ["folder"]


def test_a_transcript_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    arguments = ["--transcript", tmp_path / "file" / "run.jsonl", "--out", tmp_path]
    script = [sys.executable, "train_encrypted.py", *map(str, arguments)]
    ended = subprocess.run(script, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("train_encrypted.py: error: --transcript")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "run.json").exists()
