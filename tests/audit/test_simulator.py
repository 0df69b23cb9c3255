"""Every protocol's views are the simulators'; those of broken protocols are told from them."""

import numpy as np
import pytest

from smpc.audit import ideal, simulator
from smpc.audit.simulator import LEVEL, ORCHESTRATOR, PROVIDER, WORKERS, Real
from smpc.audit.variables import Lanes, Sampling, field_like, packed, unpacked
from smpc.semi2k import arithmetic, comparison, dealer, ring

NODE = ideal.AndGates(comparison.terms(last=False))
TRUNCATION, COMPARISON = ideal.Truncation(), ideal.Comparison()


def name_of(protocol):
    return protocol.name


def test_every_protocol_for_every_party():
    results = simulator.run_all()
    assert [result for result in results if not result.passed] == []
    exact = {(r.protocol, r.party): r for r in results if r.method == "exact"}
    assert len(exact) == 14 * 4
    assert {r.distance for r in exact.values()} == {0}
    # every secret; the random values that each worker does not know; the shares not conditioned on
    assert exact["product", "worker1"].compared == 2 * 16**2 * 16**2 * 16
    assert exact["truncation by 3", "worker1"].compared == 2 * 8 * 16 * 16**3
    assert exact["comparison", "worker1"].compared == 2 * 15 * 16 * 2 * 2**6
    sampled = {(r.protocol, r.party) for r in results if r.method == "statistical"}
    protocols = {protocol for protocol, _ in exact if "AND" not in protocol and protocol[-1] != "2"}
    protocols = protocols - {"truncation by 3"} | {"truncation by 1000"}
    assert {(protocol, worker) for protocol in protocols for worker in WORKERS} <= sampled


def distance(protocol, party):
    return simulator.check(protocol, party).distance


def deal_instead(monkeypatch, name, weaker):
    """Have the provider deal weaker(value) for the value of a uniform field."""
    deal = Real.dealt_value

    def dealt_value(self, field, one, two):
        value = deal(self, field, one, two)
        return weaker(value) if field.name == name else value

    monkeypatch.setattr(Real, "dealt_value", dealt_value)


@pytest.mark.parametrize("party", [*WORKERS, ORCHESTRATOR])
def test_a_truncation_masked_by_less_than_the_whole_ring_is_caught(monkeypatch, party):
    deal_instead(monkeypatch, "r", lambda r: r & np.uint64(7))
    assert distance(TRUNCATION, party) > 0


@pytest.mark.parametrize("party", [*WORKERS, ORCHESTRATOR])
@pytest.mark.parametrize("protocol", [ideal.AndGates((("p3", "g2"),)), NODE], ids=name_of)
def test_an_and_gate_with_a_zero_mask_is_caught(monkeypatch, protocol, party):
    deal_instead(monkeypatch, "masks", np.zeros_like)
    assert distance(protocol, party) > 0


@pytest.mark.parametrize("party", [*WORKERS, ORCHESTRATOR])
def test_a_comparison_whose_tree_has_zero_masks_is_caught(monkeypatch, party):
    deal_instead(monkeypatch, "masks0", np.zeros_like)
    assert distance(COMPARISON, party) > 0


@pytest.mark.parametrize("party", [*WORKERS, ORCHESTRATOR])
def test_a_bit_opened_without_rho_is_caught(monkeypatch, party):
    deal_instead(monkeypatch, "rho_bits", np.zeros_like)
    assert distance(COMPARISON, party) > 0


@pytest.mark.parametrize("party", [*WORKERS, ORCHESTRATOR])
@pytest.mark.parametrize("protocol", [ideal.Product(), ideal.KeptMask()], ids=name_of)
def test_one_mask_for_two_values_is_caught(monkeypatch, protocol, party):
    deal = Real.dealt_value

    def the_first_mask(self, field, one, two):
        value = deal(self, field, one, two)
        return self.__dict__.setdefault("mask", value) if field.name == "a" else value

    monkeypatch.setattr(Real, "dealt_value", the_first_mask)
    assert distance(protocol, party) > 0


def test_a_value_revealed_without_a_refresh_is_caught(monkeypatch):
    monkeypatch.setattr(arithmetic, "refresh", lambda party, deal, x: x)
    assert distance(ideal.Reveal(), ORCHESTRATOR) > 0


def test_a_share_sent_to_the_provider_is_caught(monkeypatch):
    share = Real.share

    def share_with_all(self, name, x):
        self.made["share"], _ = shares = share(self, name, x)
        return shares

    monkeypatch.setattr(Real, "share", share_with_all)
    assert distance(ideal.Mask(), PROVIDER) > 0


def failures(protocol):
    results = simulator.check_samples(protocol, n_secrets=1, n=4096, level=LEVEL)
    return {result.party for result in results if not result.passed}


def test_samples_tell_a_short_mask(monkeypatch):
    """A mask of 56 bits in place of 64, as the parties' own ends open it."""

    def mask(party, deal, x):
        a = deal["a"] >> np.uint64(8)
        delta = yield x - a
        return arithmetic.Masked(delta, a)

    monkeypatch.setattr(arithmetic, "mask", mask)
    assert failures(ideal.Mask(64)) == {*WORKERS, ORCHESTRATOR}


def test_samples_tell_a_relation_of_three_values(monkeypatch):
    """Each worker's share of zero is one too many."""
    monkeypatch.setattr(
        arithmetic, "refresh", lambda party, deal, x: x + deal["zero"] + np.uint64(1)
    )
    assert failures(ideal.Refresh(64)) == set(WORKERS)


# ---- What the comparisons stand on ---------------------------------------------------------------


def column(*values):
    return {"x": (np.array(values, dtype=np.uint64), 4)}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([0, 1, 2, 3], [3, 2, 1, 0], 0),
        ([0, 1], [0, 0, 1, 1], 0),
        ([0, 1, 2, 3], [0, 1, 2, 2], "1/4"),
        ([0, 0, 1], [0, 1], "1/6"),
        ([5], [6], 1),
    ],
)
def test_total_variation(one, other, expected):
    found = simulator.total_variation(column(*one), column(*other))
    assert found == simulator.Fraction(expected)


def test_other_variables_are_not_compared():
    with pytest.raises(ValueError, match="one world only"):
        simulator.total_variation(column(1), {"y": (np.ones(1, np.uint64), 4)})


@pytest.mark.parametrize("bits", [4, 6, 16, 64])
def test_packing_and_its_inverse(bits):
    n = 256
    for field in dealer.Comparison(n, bits).fields():
        drawn = field_like(Sampling(n), "", field, bits)
        if isinstance(drawn, Lanes):
            words = packed(drawn, bits)
            assert words.shape == field.shape
            again = unpacked(words, True, n, bits)
            assert (again.width, again.words.tolist()) == (drawn.width, drawn.words.tolist())
    depth = comparison.levels(bits)
    last = Sampling(n).stream.words(n // 4**depth) & np.uint64(2 ** min(4**depth, 63) - 1)
    lowest = unpacked(last, True, n, bits)
    assert lowest.words.tolist() == comparison.unpack(last, bits).tolist()


@pytest.mark.parametrize("worker", [0, 1])
@pytest.mark.parametrize("bits", [4, 6, 16])
def test_protocols_on_smaller_rings(bits, worker):
    """What they compute, for every secret, each many times: the tree of 6 bits has two levels."""

    def run(protocol):
        values = np.array([*protocol.values()])
        values = np.resize(values, max(4096, comparison.lanes(len(values))))
        secrets = {"x": values.astype(np.uint64) & np.uint64(2**bits - 1)}
        world = Real(Sampling(len(values)), worker, bits)
        return values, world.execute(protocol, secrets)

    def opened(one, two):
        return ring.signed(one + two, bits)

    values, outputs = run(ideal.Comparison(bits))
    (bit, x), (other_bit, other_x) = outputs
    above = opened(arithmetic.unmask(0, bit), arithmetic.unmask(1, other_bit))
    assert np.array_equal(above, values > 0)
    assert np.array_equal(opened(arithmetic.unmask(0, x), arithmetic.unmask(1, other_x)), values)
    for d in (2, 3):
        values, outputs = run(ideal.Truncation(bits, d))
        error = opened(*outputs) - values // d
        assert set(np.unique(error)) == {0, 1}
        assert not error[values % d == 0].any()
