"""Every protocol's views are the simulators'; those of broken protocols are told from them."""

import itertools

import numpy as np
import pytest

from smpc.audit import ideal, simulator
from smpc.audit.chance import LEVEL
from smpc.audit.ideal_comparison import AndGates, Comparison, Select
from smpc.audit.ideal_composed import Step
from smpc.audit.ideal_truncation import (
    BrokenOff,
    ExactTruncation,
    ProductTruncation,
    ReLU,
    TruncatedFactor,
    Truncation,
)
from smpc.audit.simulator import OWNER
from smpc.audit.transcript import ORCHESTRATOR, PROVIDER, WORKERS
from smpc.audit.variables import Enumeration, Held, Sampling, packed, uniform_like, unpacked
from smpc.audit.worlds import Real, flags
from smpc.semi2k import arithmetic, comparison, dealer, ring
from smpc.semi2k.arithmetic import Masked
from smpc.semi2k.wire import pack, raw
from smpc.semi2k.worker import Worker

NODE = AndGates(comparison.terms(4, last=False))
PROTOCOLS = 43  # on small rings
TWO_OF_THREE = {
    f"worker{i} and worker{j}, of 3 workers" for i, j in itertools.combinations((1, 2, 3), 2)
}
# Of which the orchestrator's shares are samples, too.
REVEALING = {
    *("reveal", "truncation, revealed", "two truncated products", "two of each kind", "step"),
}
NOTHING = Held(lambda name: False)
# By worker1: in both worlds every secret, the random values that it does not know, and the shares
# that are not conditioned on.
COMPARED = {
    "product": 2 * 16**2 * 16**2 * 16,
    "truncation by 2 of 4 bits": 2 * 16 * 16 * 16**2,
    "truncation by 3 of 5 bits": 2 * 32 * 32 * 32**2,
    "exact truncation by 3": 2 * 8 * 16 * 16**3,
    "comparison": 2 * 15 * 16 * 2 * 2**6,
    "step": 2 * 8**3 * 8 * 2**3 * 8,
    "noise": 2 * 4**2 * 4**5,
    "two truncations": 2 * 16**2 * 16**2,
    "ReLU": 2 * 7 * 16 * 2 * 2**4 * 16,
}


def name_of(protocol):
    return protocol.name


def calls():
    """What `simulator.run_all` has compared: pairs (a function's name, its arguments)."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("check", "check_samples", "check_runs", "check_attempts"):
            instead = lambda *args, name=name: made.append((name, args)) or []  # noqa: E731
            patch.setattr(simulator, name, instead)
        simulator.run_all()
    return made


CALLS = calls()


def sampled():
    """Parameters: those calls that are of samples; all are `thorough` but a step of two workers and
    of three, one of many elements, and what is broken off."""
    for name, args in CALLS:
        if name == "check":
            continue
        protocol, *rest = args
        kept = {
            "check_samples": isinstance(protocol, Step),
            "check_runs": rest[:2] == [65, 2],
            "check_attempts": rest[0] == 2,
        }[name]
        about = f"{protocol.name}-{'-'.join(map(str, rest[:2]))}"
        marks = [] if kept else [pytest.mark.thorough]
        yield pytest.param(name, args, marks=marks, id=f"{name}-{about}")


def test_everything_is_compared():
    compared = {}
    for name, args in CALLS:
        compared.setdefault(name, []).append(args)
    exactly = [(protocol.name, party) for protocol, party in compared["check"]]
    assert len(exactly) == len({*exactly}) == PROTOCOLS * 4 + 1
    assert {party for _, party in exactly} == {*WORKERS, PROVIDER, ORCHESTRATOR, OWNER}
    large = {protocol.name for protocol in simulator.large()}
    samples = {(protocol.name, n_workers) for protocol, n_workers, *_ in compared["check_samples"]}
    assert samples == {(name, n) for name in large for n in (2, 3)} - {("comparison", 3)}
    runs = {(protocol.name, *args) for protocol, *args, _, _ in compared["check_runs"]}
    assert runs == {("step", size, 2) for size in (1, 2, 3, 65)} | {("step", 1, 3)}
    assert [n_workers for _, n_workers, *_ in compared["check_attempts"]] == [2, 3]
    levels = [args[-1] for name, args in CALLS if name != "check"]
    assert sum(levels) <= LEVEL * (1 + 1e-9)


@pytest.mark.parametrize(
    "party",
    ["worker1", pytest.param("worker2", marks=pytest.mark.thorough), PROVIDER, ORCHESTRATOR, OWNER],
)
def test_every_protocol_for_every_party(party):
    every = [args for name, args in CALLS if name == "check"]
    results = {args[0].name: simulator.check(*args) for args in every if args[1] == party}
    assert [result for result in results.values() if not result.passed] == []
    assert {(result.method, result.distance) for result in results.values()} == {("exact", 0)}
    if party == OWNER:
        assert results["sharing"].compared == 2 * 16**3
    if party == "worker1":
        assert {name: results[name].compared for name in COMPARED} == COMPARED


@pytest.mark.parametrize(("name", "args"), [*sampled()])
def test_samples_of_the_parties_own_ends(name, args):
    """Of elements that are samples there are half as many as in the audit, but 512 at least, as it
    has of three workers' programs: what is off by as much as shows in these still shows in all."""
    if name == "check_samples":
        protocol, n_workers, n_secrets, n, level = args
        args = protocol, n_workers, n_secrets, max(n // 2, 512), level
    results = getattr(simulator, name)(*args)
    assert [result for result in results if not result.passed] == []
    n_workers = args[2] if name == "check_runs" else args[1]
    statistical = {r.party for r in results if r.method == "statistical"}
    watching = {*WORKERS} if n_workers == 2 else TWO_OF_THREE
    also = {PROVIDER, ORCHESTRATOR} if name == "check_attempts" else set()
    if name == "check_runs" or args[0].name in REVEALING:
        also = also | {ORCHESTRATOR}
    if n_workers == 3:
        also = {f"{who}, of 3 workers" for who in also}
    assert statistical == watching | also
    said = {r.party.split(",")[0] for r in results if r.method == "messages"}
    assert said == ({PROVIDER, ORCHESTRATOR} if name == "check_samples" else set())


def distance(protocol, party):
    return simulator.check(protocol, party).distance


def deal_instead(monkeypatch, field, weaker):
    """Have the provider deal weaker(value) for the value of uniform fields of this name."""

    def dealt_value(self, label, name, value):
        return weaker(value) if name == field else value

    monkeypatch.setattr(Real, "dealt_value", dealt_value)


def deal_in_the_clear(monkeypatch, field):
    """Have worker1 be dealt all of a field, and the others zeros."""
    shared = Real.shared

    def clear(self, label, name, value, parts):
        if name != field:
            return shared(self, label, name, value, parts)
        return [value, *(np.zeros_like(value) for _ in parts[1:])]

    monkeypatch.setattr(Real, "shared", clear)


# ---- Broken protocols, exactly -------------------------------------------------------------------


@pytest.mark.parametrize("party", WORKERS)
@pytest.mark.parametrize(
    "protocol",
    [Truncation(), Truncation(form="hidden"), ProductTruncation(), ExactTruncation()],
    ids=name_of,
)
def test_a_truncation_masked_by_less_than_the_whole_ring_is_caught(monkeypatch, protocol, party):
    deal_instead(monkeypatch, "s", lambda s: s & np.uint64(7))
    assert distance(protocol, party) > 0


def test_the_orchestrator_sees_that_from_runs_made_anew(monkeypatch):
    deal_instead(monkeypatch, "s", lambda s: s & np.uint64(7))
    assert distance(Truncation(), ORCHESTRATOR) > 0


@pytest.mark.parametrize("party", [*WORKERS, PROVIDER, ORCHESTRATOR])
@pytest.mark.parametrize("protocol", [Truncation(), TruncatedFactor(), ReLU()], ids=name_of)
def test_a_zone_that_is_never_checked_is_caught(monkeypatch, protocol, party):
    truncate = arithmetic.truncate

    def careless(party, deal, x, d, zone):
        """The workers' part of it, but for the check."""
        side = truncate(party, deal, x, d, zone)
        c = yield next(side)
        shift = np.uint64(arithmetic.offset(d, zone))
        y = c // np.uint64(d) - shift // np.uint64(d)
        return Masked(y, deal.get("q")), Masked(c - shift, None)

    monkeypatch.setattr(arithmetic, "truncate", careless)
    assert distance(protocol, party) > 0


@pytest.mark.parametrize("party", WORKERS)
def test_a_quotient_that_serves_as_the_mask_of_an_opening_is_caught(monkeypatch, party):
    """What masks w is -(r div d), which is not uniform, and masks another value already."""

    class QuotientFirst(TruncatedFactor):
        def steps(self, n):
            mask, truncate, *rest = super().steps(n)
            return [truncate, mask, *rest]

    shared, quotients = Real.shared, []

    def notes_quotients(self, label, name, value, parts):
        quotients.extend([value] if name == "q" else [])
        return shared(self, label, name, value, parts)

    def dealt_value(self, label, name, value):
        return quotients[-1] if label == "mask" else value

    assert distance(QuotientFirst(), party) == 0
    monkeypatch.setattr(Real, "shared", notes_quotients)
    monkeypatch.setattr(Real, "dealt_value", dealt_value)
    assert distance(QuotientFirst(), party) > 0


@pytest.mark.parametrize("party", WORKERS)
@pytest.mark.parametrize("protocol", [AndGates((("p3", "g2"),)), NODE], ids=name_of)
def test_an_and_gate_with_a_zero_mask_is_caught(monkeypatch, protocol, party):
    deal_instead(monkeypatch, "masks", np.zeros_like)
    assert distance(protocol, party) > 0


@pytest.mark.parametrize("party", WORKERS)
@pytest.mark.parametrize("protocol", [Comparison(), Comparison(compared=3), ReLU()], ids=name_of)
@pytest.mark.parametrize("field", ["masks0", "rho_bits"])
def test_a_comparison_whose_tree_or_bit_has_zero_masks_is_caught(
    monkeypatch, protocol, party, field
):
    deal_instead(monkeypatch, field, np.zeros_like)
    assert distance(protocol, party) > 0


@pytest.mark.parametrize("party", WORKERS)
@pytest.mark.parametrize("protocol", [ideal.Product(), ideal.KeptMask()], ids=name_of)
def test_one_mask_for_two_values_is_caught(monkeypatch, protocol, party):
    def the_first_mask(self, label, name, value):
        return self.__dict__.setdefault("mask", value) if name == "s" else value

    monkeypatch.setattr(Real, "dealt_value", the_first_mask)
    assert distance(protocol, party) > 0


@pytest.mark.parametrize(
    ("protocol", "field"),
    [
        (Select("masked"), "c"),
        (Select("bit"), "c"),
        (ReLU(), "c"),
        (ideal.Unhide(), "a"),
        (ideal.HiddenMask(), "s"),
        (ideal.Refresh(form="hidden"), "m"),
        (ideal.Linear(), "m"),
        (Truncation(), "q"),
        (Comparison(), "r"),
    ],
    ids=lambda x: getattr(x, "name", x),
)
def test_what_is_dealt_in_the_clear_is_caught(monkeypatch, protocol, field):
    """Products of masks, and masks of which a worker has shares, or none."""
    assert distance(protocol, "worker1") == 0
    deal_in_the_clear(monkeypatch, field)
    assert distance(protocol, "worker1") > 0


@pytest.mark.parametrize("form", ["share", "hidden"])
def test_a_value_revealed_without_fresh_shares_is_caught(monkeypatch, form):
    monkeypatch.setattr(arithmetic, "complete", lambda party, deal, x: x)
    assert distance(ideal.Reveal(form=form), ORCHESTRATOR) > 0


@pytest.mark.parametrize("worker", [0, 1])
def test_a_share_sent_to_the_provider_is_caught(monkeypatch, worker):
    execute = Real.execute

    def tells(self, secrets):
        execute(self, secrets)
        self.made["share"] = self.inputs[worker]["x"]
        return self

    monkeypatch.setattr(Real, "execute", tells)
    assert distance(ideal.Mask(), PROVIDER) > 0


def test_what_is_opened_sent_to_the_provider_is_caught(monkeypatch):
    execute = Real.execute

    def tells(self, secrets):
        execute(self, secrets)
        self.made |= self.opened
        return self

    monkeypatch.setattr(Real, "execute", tells)
    assert distance(ideal.Mask(), PROVIDER) > 0
    assert distance(Truncation(), PROVIDER) > 0


def test_a_share_sent_to_the_owner_is_caught(monkeypatch):
    """Its own value is no secret to it; a worker's share is."""
    execute = Real.execute

    def tells(self, secrets):
        execute(self, secrets)
        self.masks["x"] = self.inputs[0]["x"].a
        return self

    assert distance(ideal.Sharing(), OWNER) == 0
    monkeypatch.setattr(Real, "execute", tells)
    assert distance(ideal.Sharing(), OWNER) > 0


# ---- Runs made anew ------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "d", "zone"), [(4, 2, 3), (4, 3, 2), (6, 3, 4)])
def test_what_runs_made_anew_tell_the_provider_is_bounded(bits, d, zone):
    """For any two secrets it differs with probability 2 |x - x'| / 2^bits at most."""
    protocol = Truncation(bits, d, zone)
    minus_r = np.arange(2**bits, dtype=np.uint64)
    told = {
        x: protocol.leakage({"x": np.full(2**bits, x % 2**bits, np.uint64)}, {"truncate": minus_r})
        for x in protocol.values()
    }
    for x, y in itertools.combinations(told, 2):
        assert (told[x] != told[y]).sum() <= 2 * abs(x - y)
    assert (told[0] != told[1]).sum() == 2


@pytest.mark.parametrize(("bits", "zone"), [(4, 3), (5, 2)])
def test_the_zone_is_what_the_workers_code_says(bits, zone):
    assert flags(bits, 2, zone).tolist() == [c < 2**zone for c in range(2**bits)]


# ---- Broken protocols, by samples of the parties' own ends ---------------------------------------


def failures(protocol, n_workers=2):
    results = simulator.check_samples(protocol, n_workers, n_secrets=1, n=4096, level=LEVEL)
    return {result.party for result in results if not result.passed}


def test_samples_tell_a_short_mask(monkeypatch):
    """A mask of 56 bits in place of 64, as the parties' own ends open it."""

    def mask(party, deal, x, hidden):
        a = deal["s"] >> np.uint64(8)
        delta = yield x - a
        return Masked(delta, a)

    monkeypatch.setattr(arithmetic, "mask", mask)
    assert failures(ideal.Mask(64)) == {*WORKERS}
    assert failures(ideal.Mask(64), 3) == TWO_OF_THREE


def test_samples_tell_a_relation_of_three_values(monkeypatch):
    """What worker1 is given to complete its share is one too many."""

    def complete(party, deal, x):
        return x + deal["m"] + np.uint64(party == 0)

    monkeypatch.setattr(arithmetic, "complete", complete)
    assert failures(ideal.Refresh(64)) == set(WORKERS)


def test_what_is_revealed_before_the_last_opening_is_caught(monkeypatch):
    """A worker that reveals as soon as it can, though the run may yet be broken off."""
    say = Worker._say

    def hasty(self, out):
        if self.run.revealed:
            (run, attempt), revealed = self._latest, raw(self.run.revealed)
            message = pack("result", run=run, attempt=attempt, revealed=revealed)
            out.append((ORCHESTRATOR, message))
        say(self, out)

    assert failures(BrokenOff(64)) == set()
    monkeypatch.setattr(Worker, "_say", hasty)
    with pytest.raises(ValueError, match="one world only"):
        failures(BrokenOff(64))


def test_what_else_the_orchestrator_is_told_is_caught(monkeypatch):
    """A worker that has an opened value in the number of a run."""
    finish = Worker._finish

    def telling(self):
        opened = int(self.values[0].delta[0] >> np.uint64(17))
        ((orchestrator, _),) = finish(self)
        return [(orchestrator, pack("result", run=opened, attempt=0, revealed=b""))]

    monkeypatch.setattr(Worker, "_finish", telling)
    results = simulator.check_samples(ideal.Sharing(64), 2, 2, 4096, LEVEL)
    assert {result.party for result in results if not result.passed} == {ORCHESTRATOR}


# ---- What the comparisons stand on ---------------------------------------------------------------


@pytest.mark.parametrize("bits", [4, 6, 16, 64])
def test_packing_and_its_inverse(bits):
    n = 256
    for field in dealer.Comparison(n, bits).fields():
        drawn = uniform_like(Sampling(n), field.name, field.shape, field.boolean, bits)
        if field.boolean:
            assert packed(drawn).shape == field.shape
            assert np.array_equal(unpacked(packed(drawn)), drawn)
    words = Sampling(n).draw("x", 2**bits)
    planes = unpacked(comparison.planes(words, bits))
    assert np.array_equal(planes @ (np.uint64(1) << np.arange(bits, dtype=np.uint64)), words)
    assert np.array_equal(unpacked(packed(planes)[0]), comparison.unpack(packed(planes)[0]) > 0)


def test_an_enumeration_has_every_combination_once():
    coins, sizes = Enumeration(48, NOTHING), {"w": 2, "x": 4, "y": 3, "z": 2}
    drawn = set(zip(*(coins.draw(*pair).tolist() for pair in sizes.items()), strict=True))
    assert len(drawn) == coins.combinations == 48
    assert coins.draw("x", 2) is coins.draw("x", 2)


@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize("bits", [4, 6, 12])
def test_protocols_on_smaller_rings(bits, worker):
    """What they compute, for every secret, each many times: the tree of 6 bits has two levels."""

    def run(protocol):
        values = np.resize(np.array([*protocol.values()]), 4096)
        coins = Sampling(len(values), apart=True)
        secrets = {"x": values.astype(np.uint64) & np.uint64(2**bits - 1)}
        return values, Real(protocol, coins, (worker,)).execute(secrets)

    def value(world, name):
        one, other = (
            arithmetic.unmask(party, out[name]) if isinstance(out[name], Masked) else out[name]
            for party, out in enumerate(world.outputs)
        )
        return ring.signed(one + other, bits)

    values, world = run(Comparison(bits))
    assert np.array_equal(value(world, "b"), values > 0)
    for d in (2, 3):
        values, world = run(ExactTruncation(bits, d))
        error = value(world, "y") - values // d
        assert set(np.unique(error)) == {0, 1}
        assert not error[values % d == 0].any()
        protocol = Truncation(bits, d, bits - 1)
        values, world = run(protocol)
        good = ~world.anew & (np.abs(values) < protocol.most)
        error = (value(world, "y") * d - values)[good]
        assert np.abs(error).max() < d
        assert not error[values[good] % d == 0].any()
        x = world.outputs[0]["t"].delta + world.minus_r["truncate"]
        assert np.array_equal(ring.signed(x, bits)[~world.anew], values[~world.anew])
        assert world.anew.any()
