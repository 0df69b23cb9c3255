"""Negative controls: semi2k, its rules broken on purpose in one place each, and caught for certain.

As in `test_controls`, a break depends on nothing but what the party at hand has.
"""

import numpy as np
import pytest
import syft

from smpc.audit import conduct
from smpc.audit.transcript import OWNERS, PROVIDER, WORKERS
from smpc.semi2k import arithmetic, dealer, network, provider, session, wire
from smpc.semi2k.network import Network
from smpc.semi2k.provider import Provider
from smpc.semi2k.session import Session
from smpc.semi2k.wire import ORCHESTRATOR, pack, raw, unpack
from smpc.semi2k.worker import Worker
from tests.audit.conftest import found_in

# ---- Runs that are made anew ---------------------------------------------------------------------


def test_a_zone_that_is_never_checked(monkeypatch, widen, recorded):
    """A quotient that wrapped is used in silence."""

    def truncate(party, deal, x, d, zone):
        offset = np.uint64(arithmetic.offset(d, zone))
        c = yield x + deal["s"] + (offset if party == 0 else np.uint64(0))
        y = c // np.uint64(d) - offset // np.uint64(d)
        return arithmetic.Masked(y, deal.get("q")), arithmetic.Masked(c - offset, None)

    widen(58)  # of one in 64 elements
    monkeypatch.setattr(arithmetic, "truncate", truncate)
    texts = {text for check, text in found_in(recorded()) if check == "messages"}
    for name in WORKERS:
        assert f"{name} to me: anew run 0 attempt 0 is missing" in texts


def test_a_quotient_of_the_r_of_another_run(monkeypatch, carried_through):
    """The mask that a truncation leaves is not that of what it opened."""
    native, native_make, known = dealer.Truncation.make, Provider._make, {}

    def _make(self, address, program, masks):
        known["here"] = self.__dict__.setdefault("quotients", {})
        return native_make(self, address, program, masks)

    def make(self, sums, m):
        _, (q, minus_r) = native(self, sums, m)
        earlier = known["here"].get(self, q)
        known["here"][self] = q
        return {"q": earlier} if self.shared else {}, (earlier, minus_r)

    monkeypatch.setattr(Provider, "_make", _make)
    monkeypatch.setattr(dealer.Truncation, "make", make)
    found = found_in(carried_through())
    lines = [text for check, text in found if check == "dealing"]
    assert lines and all("deal run 1 attempt 0" in line for line in lines)


def test_masks_of_an_attempt_that_was_broken_off(monkeypatch, made_anew):
    """The provider keeps what it has made first, and the workers what came of the last."""

    def settle(values, unsettled, counts, delete):
        for run, _ in counts:
            values.update(unsettled.pop((run, 0), {}))
        for id in delete:
            values.pop(id, None)

    monkeypatch.setattr(provider, "settle", settle)
    found = found_in(made_anew())
    lines = [text for check, text in found if check == "dealing"]
    assert lines and all("deal run 1" in line for line in lines), "the first to use them"


def test_a_value_revealed_before_the_last_opening(monkeypatch, carried_through):
    native = Worker._say

    def say(self, out):
        run, address, orchestrator = self.run, self._latest, self._order.sender
        native(self, out)
        if run.finished and run.__dict__.get("has_revealed"):
            out.pop()
        elif run.revealed and not run.finished and "has_revealed" not in run.__dict__:
            run.has_revealed = True
            about = {"run": address[0], "attempt": address[1]}
            out.append((orchestrator, pack("result", **about, revealed=raw(run.revealed))))

    monkeypatch.setattr(Worker, "_say", say)
    assert found_in(carried_through()) == [
        ("messages", f"{name} reveals what run {run}, attempt 0 gives before its last round")
        for name in WORKERS
        for run in range(2)
    ]


def test_a_value_revealed_by_an_attempt_that_is_broken_off(monkeypatch, made_anew):
    """And so twice, once for each rounding."""
    native, native_receive = Worker._go_on, Session.receive

    def go_on(self):
        run, address = self.run, self._latest
        out = native(self)
        if run is not None and run.revealed and out and unpack(out[-1][1])["do"] == "anew":
            about = {"run": address[0], "attempt": address[1]}
            out.append((out[-1][0], pack("result", **about, revealed=raw(run.revealed))))
        return out

    def receive(self, sender, message):
        return [] if sender in self._replies else native_receive(self, sender, message)

    monkeypatch.setattr(Worker, "_go_on", go_on)
    monkeypatch.setattr(Session, "receive", receive)
    lines = []
    while not lines:
        lines = conduct.revealed_too_early(made_anew())
    assert all(line.endswith("gives, which was broken off") for line in lines)


# ---- Who says what to whom -----------------------------------------------------------------------


def test_a_masked_value_sent_to_the_orchestrator(monkeypatch, recorded):
    native, native_receive = Worker._say, Session.receive

    def say(self, out):
        orchestrator, before = self._order.sender, len(out)
        native(self, out)
        opened = [message for _, message in out[before:] if unpack(message)["do"] == "open"]
        out += [(orchestrator, message) for message in opened[:1]]

    def receive(self, sender, message):
        return [] if unpack(message)["do"] == "open" else native_receive(self, sender, message)

    monkeypatch.setattr(Worker, "_say", say)
    monkeypatch.setattr(Session, "receive", receive)
    transcript = recorded()
    sent = [f"{name} sends me what is masked" for name in WORKERS]
    assert conduct.trespasses(transcript) == sent
    found = found_in(transcript)
    assert {("messages", text) for text in sent} < {*found}
    assert {check for check, _ in found} == {"messages"}


class Dealing:
    """The orchestrator's end, which deals, too."""

    def __init__(self, session, provider):
        self.session, self.provider = session, provider

    def receive(self, sender, message):
        for_worker = sender in self.session.roster.workers
        return (self.session if for_worker else self.provider).receive(sender, message)


class Dealt:
    """A worker's end, to which it does so."""

    def __init__(self, end):
        self.end = end

    def receive(self, sender, message):
        if unpack(message)["do"] in ("key", "deal", "deal_input"):
            sender = PROVIDER
        return self.end.receive(sender, message)


def test_randomness_dealt_by_the_orchestrator(monkeypatch, recorded):
    """As in syft's spdz: found by who says what."""
    for pair in ((ORCHESTRATOR, ORCHESTRATOR), (OWNERS, ORCHESTRATOR), (ORCHESTRATOR, OWNERS)):
        roles = [wire.OWNER if role == OWNERS else role for role in pair]
        monkeypatch.setitem(network.KINDS, tuple(roles), "dealing")

    def after_sharing():
        (parties,) = syft.local_worker.crypto_store.semi2k.values()
        ends, door = parties.session.network.ends, Network.carry

        def carry(self, *message):
            return door(self, *("me" if part == PROVIDER else part for part in message))

        ends["me"] = Dealing(parties.session, ends[PROVIDER])
        ends |= {name: Dealt(ends[name]) for name in WORKERS}
        monkeypatch.setattr(Network, "carry", carry)

    found = conduct.trespasses(recorded(after_sharing))
    assert found == [
        "me draws from words",
        "me sends me what is public",
        "me sends worker2 what is dealt",
    ]


@pytest.fixture
def told(monkeypatch):
    """told(verb, ends) has a message of this verb hold numbers, `told`, that `ends` pay no heed to;
    and an end that says it, whose `numbers` these are."""

    def told(verb, receivers):
        for fields in wire.GRAMMAR.values():
            if verb in fields:
                monkeypatch.setitem(fields, verb, fields[verb] | {"told": lambda x: True})
        for end in receivers:
            native = getattr(end, f"_{verb}")

            def method(self, sender, told, native=native, **fields):
                return native(self, sender, **fields)

            monkeypatch.setattr(end, f"_{verb}", method)

    return told


def tells(found, message):
    """Whether a message was found to differ under another secret, whoever holds a key."""
    of_this = [name for name in found if name.endswith(f"{message} differs")]
    return {name.split(",")[0] for name in of_this} == {
        *(f"resampled: {worker} of 2" for worker in WORKERS),
        "resampled: worker1 and worker3 of 3",
    }


def test_a_share_sent_to_the_provider_as_numbers(monkeypatch, resampled, told):
    """Which is in no array, so that no transcript says that it is a share."""
    shares, share = {}, Session.share

    def noted(self, values):
        node = share(self, values)
        value = self.network.ends["worker1"].values[node.id]
        shares["worker1"] = (value.delta + value.a).ravel().tolist()
        return node

    def with_a_share(do, **fields):
        return pack(do, **fields, **({"told": shares["worker1"]} if do == "run" else {}))

    told("run", (Worker, Provider))
    monkeypatch.setattr(Session, "share", noted)
    monkeypatch.setattr(session, "pack", with_a_share)
    assert tells(resampled(), "run (message) from me to crypto_provider")


def test_a_share_answered_as_numbers(monkeypatch, resampled, told):
    """By worker1, to the orchestrator."""
    native = Worker._finish

    def finish(self):
        registers = self.run.registers.values() if self.party == 0 else ()
        shares = [x.ravel().tolist() for x in registers if isinstance(x, np.ndarray)]
        ((orchestrator, message),) = native(self)
        return [(orchestrator, pack(**unpack(message), told=shares))]

    told("result", ())
    monkeypatch.setattr(Worker, "_finish", finish)
    assert tells(resampled(), "result (message) from worker1 to me")
