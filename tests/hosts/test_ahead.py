"""The crypto provider deals for the plan's next positions before they are asked for."""

import itertools

import pytest

from smpc.audit import chance
from smpc.audit.examine import examined
from smpc.audit.ledger import Ledger
from smpc.audit.transcript import Recorder, Transcript
from smpc.semi2k import compiler
from smpc.semi2k.network import Network
from smpc.semi2k.provider import AHEAD
from tests.hosts.conftest import STEPS, Parties, Training, plan_for


@pytest.fixture
def dealing(hosts, tmp_path, monkeypatch):
    """dealing(steps) -> a session under a plan of these steps, and its provider, who deals ahead
    whenever it has nothing else to do; all in memory."""
    made = []

    def dealing(steps):
        made.append(Parties(hosts, tmp_path, plan_for(hosts.configuration, steps=steps)))
        session = made[-1].in_memory()
        provider = session.network.ends["dealer"]
        native = Network.send

        def send(network, sender, messages):
            native(network, sender, messages)
            while ahead := provider.ahead():
                native(network, "dealer", ahead)

        monkeypatch.setattr(Network, "send", send)
        return session, provider

    yield dealing
    for parties in made:
        parties.stop()


def test_what_is_known_is_dealt_for_ahead(dealing):
    """What has come and has not served yet; when it is asked for, nothing more is dealt."""
    session, provider = dealing(STEPS)
    training = Training(session)
    batches = {owner: training.batch(owner) for owner in STEPS}
    training.step(batches["alice"])
    dealt = session.network.counters.copy().dealt
    assert dealt > 0 and [ahead.position for ahead in provider._ahead.values()] == [1]
    training.step(batches["bob"])
    assert session.network.counters.dealt == dealt and not provider._ahead
    training.step(batches["alice"])
    assert session.network.counters.dealt > dealt


@pytest.mark.parametrize("lag", range(AHEAD))
def test_a_batch_that_is_shared_anew_soon(dealing, lag):
    """In short epochs of items that are shared in each anew: it is not dealt for before it has
    come, however long after its position the former one is forgotten."""
    session, _ = dealing(("alice",) * 6)
    training, kept = Training(session), []
    for _ in range(6):
        kept.append(training.batch("alice"))
        del kept[: -1 - lag]
        assert training.step(kept[-1]).shape == ()


def recorded_from_position_0(hosts, folder):
    """The `Transcript` of two steps, of which the second is dealt for with the first."""
    folder.mkdir()
    parties = Parties(hosts, folder, plan_for(hosts.configuration, steps=STEPS))
    recorder = Recorder(folder / "run.jsonl", {"protocol": "semi2k", "zone": 63})
    recorder.start()
    session = parties.in_memory()
    network, provider = session.network, session.network.ends["dealer"]

    def send(sender, messages):
        Network.send(network, sender, messages)
        while ahead := provider.ahead():
            Network.send(network, "dealer", ahead)

    network.send = send
    training = Training(session)
    batches = {owner: training.batch(owner) for owner in STEPS}
    for owner in STEPS:
        training.step(batches[owner])
    recorder.save()
    parties.stop()
    return Transcript(folder / "run.jsonl")


def test_what_was_dealt_ahead_and_did_not_serve_is_accounted_for(hosts, tmp_path, monkeypatch):
    """By the audit, which knows its addresses and its size: a run made anew goes on at another."""
    for name, value in {"ZONE": 62, "MAGNITUDE": 2**50, "ANEW": 1}.items():
        monkeypatch.setattr(compiler, name, value)
    void, times = set(), itertools.count()
    while not void:  # the first run is made anew
        transcript = recorded_from_position_0(hosts, tmp_path / f"{next(times)}")
        view, dealt = transcript.view("dealer"), {"sender": "dealer", "name": "deal"}
        dealt, asked = (
            {(fields["run"], fields["attempt"]) for _, fields in view.messages(**ends)}
            for ends in (dealt, {"receiver": "dealer", "name": "run"})
        )
        void = dealt - asked
    ((_, found),) = examined([transcript], chance.Tests())
    assert found == []
    one_more = next(e for e in transcript.entries if e.name == "deal")
    transcript.entries.append(one_more._replace(fields=one_more.fields | {"run": 2**30}))
    assert {finding.check for finding in Ledger(transcript).findings} == {"messages"}
