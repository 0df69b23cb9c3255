"""Who may share with whom, who sees what, and that nothing is used twice or piles up."""

import gc
import itertools
from fractions import Fraction

import numpy as np
import pytest
import syft
import torch

from smpc.semi2k.arithmetic import Masked
from smpc.semi2k.owner import Owner
from smpc.semi2k.program import name_of
from smpc.semi2k.provider import Provider
from smpc.semi2k.session import Session
from smpc.semi2k.wire import Refused, pack, unpack
from smpc.semi2k.worker import Worker
from tests.conftest import reveal
from tests.semi2k.conftest import (
    N_WORKERS,
    Training,
    check_in_step,
    counts,
    ends,
    new_session,
    recorded,
    session_of,
)


def test_who_may_share(parties):
    worker1, worker2 = parties.workers
    everyone, third = parties.of(5).workers, syft.VirtualWorker(syft.hook, id="worker6")
    x = torch.tensor([1, 2])
    for workers, provider, message in [
        ((worker1, worker2), None, "crypto_provider"),
        ((worker1, worker2), "somebody", "crypto_provider"),
        ((worker1, worker2), worker2, "must be a third party"),
        ((worker1, worker2), syft.local_worker, "not the orchestrator"),
        ((worker1,), parties.crypto_provider, "two to 5 different workers"),
        ((worker1, worker1), parties.crypto_provider, "two to 5 different workers"),
        ((*everyone, third), parties.crypto_provider, "two to 5 different workers"),
    ]:
        with pytest.raises(ValueError, match=message):
            x.share(*workers, crypto_provider=provider, protocol="semi2k")


def test_other_sizes_of_integers_are_refused(parties):
    with pytest.raises(ValueError, match="64-bit"):
        torch.tensor([1]).share(
            *parties.workers,
            crypto_provider=parties.crypto_provider,
            protocol="semi2k",
            dtype="int",
        )


MIXED = r"cannot be mixed|another protocol|protocol snn"


@pytest.mark.parametrize(
    "operation",
    [
        lambda x, y: x + y,
        lambda x, y: x - y,
        lambda x, y: x * y,
        lambda x, y: x @ y,
        lambda x, y: x > y,
        lambda x, y: x == y,
    ],
)
def test_protocols_and_precisions_are_not_mixed(parties, share, operation):
    x = [[1.0, 2.0], [3.0, 4.0]]
    semi2k, snn = share(x, "semi2k"), share(x, "snn")
    for pair in ((semi2k, snn), (snn, semi2k)):
        with pytest.raises(TypeError, match=MIXED):
            operation(*pair)
    with pytest.raises((ValueError, AssertionError), match="precision"):
        operation(semi2k, share(x, "semi2k", precision_fractional=4))

    def integers(protocol):
        return torch.tensor([[1, 2], [3, 4]]).share(
            *parties.workers, crypto_provider=parties.crypto_provider, protocol=protocol
        )

    for pair in (("semi2k", "snn"), ("snn", "semi2k")):
        with pytest.raises(TypeError, match=MIXED):
            operation(*map(integers, pair))


def test_sessions_are_not_mixed(parties, share_integers):
    other_provider = syft.VirtualWorker(syft.hook, id="another_crypto_provider")
    other = torch.tensor([1]).share(
        *parties.workers, crypto_provider=other_provider, protocol="semi2k"
    )
    with pytest.raises(ValueError, match="different parties"):
        share_integers([1]) + other
    assert (other * other).get().tolist() == [1]


# Of a step of `Training`, whose net has one hidden layer: 6 for that (what is truncated, 3 levels
# of the comparison, its bit, the mask of the product), 1 for the last layer, 2 back, 1 to update.
ROUNDS = 10


def do(message):
    return unpack(message)["do"]


def test_the_provider_receives_no_values(group):
    """Programs hold numbers and what is public; the rest is names, numbers and shapes."""
    training = Training(group)
    training.step().get()
    with recorded(training.session.network) as messages:
        training.next_batch()
        training.step().get()
    to_provider = [unpack(m) for _, receiver, m in messages if receiver == "crypto_provider"]
    assert {fields["do"] for fields in to_provider} == {"input", "run"}

    def numbers_alone(field):
        assert not isinstance(field, bytes), "no array of any kind"
        for part in field if isinstance(field, tuple) else ():
            numbers_alone(part)

    for fields in to_provider:
        if fields["do"] == "run":
            name, key, forget = (fields.pop(field) for field in ("program", "key", "forget"))
            assert (key is None or name == name_of(key)) and all(len(name) == 16 for name in forget)
        numbers_alone(tuple(fields.values()))
    workers, provider = ends(training.session)
    for program in provider.programs.values():
        for instruction in program.instructions:
            arrays = [x for x in instruction.params if isinstance(x, np.ndarray)]
            assert not any(any(array.strides) for array in arrays), "of one public number each"
    said = b"".join(message for _, receiver, message in messages if receiver == "crypto_provider")
    for worker in workers:
        for value in worker.values.values():
            for array in value[:2] if isinstance(value, Masked) else (value,):
                assert array is None or array.tobytes() not in said


def test_the_orchestrator_receives_what_is_revealed_and_nothing_else(group):
    training = Training(group)
    with recorded(training.session.network) as messages:
        training.step().get()
    received = [(sender, unpack(m)) for sender, receiver, m in messages if receiver == "me"]
    assert sorted(sender for sender, _ in received) == [worker.id for worker in group.workers]
    for _, fields in received:
        assert fields["do"] == "result"
        assert len(fields["revealed"]) == 8, "its share of the loss"


def test_dealing_passes_by_the_orchestrator(session):
    """Keys and corrections go from the provider to whom they are for, and come back from nobody."""
    with recorded(session.network) as messages:
        session._make_keys()
        x = session.share(np.arange(3))
        square = session.graph.times("mul", x, x)
        assert session.reveal(square).tolist() == [0, 1, 4]
    workers, last = session.roster.workers, session.roster.workers[-1]
    dealt = [(receiver, do(m)) for sender, receiver, m in messages if sender == "crypto_provider"]
    assert dealt[:-2] == [(party, "key") for party in (*workers, "owners")]
    assert dealt[-2:] == [(last, "deal_input"), (last, "deal")], "the others draw all of their own"
    keys = [unpack(m)["key"] for _, _, m in messages if do(m) == "key"]
    assert len(set(keys)) == len(keys)
    assert not any(key in m for key in keys for _, _, m in messages if do(m) != "key")
    held = {type(value) for name, value in vars(session).items() if name != "network"}
    assert held.isdisjoint({Worker, Provider, Owner})


def test_keys_are_for_workers_and_the_owners_that_take_part(session):
    me, provider = session.roster.orchestrator, session.network.ends["crypto_provider"]
    for owners in (("owners", "owners"), ("worker1",), ("me",), ("nobody",)):
        with pytest.raises(Refused, match=r"^keys are for owners, each named once"):
            provider.receive(me, pack("keys", owners=owners))
    x = session.share(np.arange(3))  # under the keys there were
    keyed = [receiver for receiver, _ in provider.receive(me, pack("keys", owners=()))]
    assert keyed == list(session.roster.workers)
    with pytest.raises(Refused, match=r"or has no key$"):
        session.share(np.arange(3))
    session._make_keys()
    assert session.reveal(session.graph.times("mul", x, x)).tolist() == [0, 1, 4]


def test_what_is_revealed_to_an_owner_is_read_before_the_run_counts(session):
    read = []
    session.network.ends["owners"].read = lambda values: read.append(values.tolist())
    x = session.share(np.arange(3))

    def lose(_, message, carry):
        return [] if do(message[2]) == "read" else carry()

    with (
        recorded(session.network, lose),
        pytest.raises(RuntimeError, match=r"^no answer came from owners$"),
    ):
        session.reveal_to(session.graph.times("mul", x, x), "owners")
    assert read == [[0, 1, 4]]
    session.reveal_to(session.graph.times("mul", x, x), "owners")
    assert read == [[0, 1, 4]] * 2


def opened_words(messages):
    """What all workers' shares add up to, in each round: uint64 arrays."""
    rounds = {}
    for sender, _, message in messages:
        if do(message) == "open":
            fields = unpack(message)
            where = rounds.setdefault((fields["run"], fields["attempt"], fields["round"]), {})
            where[sender] = np.frombuffer(fields["words"], np.uint64)
    return [sum(shares.values()) for shares in rounds.values()]


def test_every_round_passes_once_between_any_two_workers(session):
    """And all say as much, counted once each, at whoever sends it."""
    start = session.network.counters.copy()
    with recorded(session.network) as messages:
        session.reveal(session.graph.above_zero(session.share(np.arange(100))))
    pairs = [(s, r, unpack(m)["round"]) for s, r, m in messages if do(m) == "open"]
    assert len(pairs) == len(set(pairs))
    workers, since = session.roster.workers, session.network.counters.since(start)
    assert {(s, r) for s, r, _ in pairs} == set(itertools.permutations(workers, 2))
    assert since["rounds"] == max(round for *_, round in pairs) == len(opened_words(messages)) == 4
    assert since["opened"] == sum(
        len(m) for s, r, m in messages if do(m) == "open" and r == workers[s == workers[0]]
    )
    sent = {id: sum(len(m) for sender, _, m in messages if sender == id) for id, _, _ in messages}
    counted = {id: sum(of.get(id, 0) for of in since["sent"].values()) for id in sent}
    assert counted == sent


def test_what_is_dealt_does_not_grow_with_the_workers(parties):
    sizes = []
    for n in N_WORKERS:
        training = Training(parties.of(n))
        training.step().get()
        start = training.session.network.counters.copy()
        training.step().get()
        since = training.session.network.counters.since(start)
        assert since["sent"]["dealing"].keys() >= {"crypto_provider"}
        sizes.append(since["sent"]["dealing"]["crypto_provider"])
        assert since["rounds"] == ROUNDS
    assert len(set(sizes)) == 1


def test_all_shares_but_one_say_nothing(session):
    """Equal values, shared again and again: any n - 1 workers' shares, and sums of some of them,
    are uniform, and so is what all of them know, delta; all together they are the value."""
    values = np.full(4000, 12345)
    x = session.graph.refreshed(session.share(values))
    session.want(x, factor=False)
    session.compute()
    session.reveal(session.graph.scaled(x, 3))
    workers, _ = ends(session)
    shares = [worker.share(x.id) for worker in workers]
    assert (sum(shares) == 12345).all()
    for n in range(1, len(shares)):
        for some in itertools.combinations(shares, n):
            check_fair(sum(some))


def check_fair(words):
    """Every bit of these words is 1 about as often as 0, and no two are the same."""
    ones = np.unpackbits(words.view(np.uint8)).reshape(-1, 64).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 6 * 0.5 / np.sqrt(len(words)), "every bit is fair"
    assert len(np.unique(words)) == len(words)


def test_what_an_owner_sends_is_under_its_mask(session):
    values = np.full(4000, 12345)
    with recorded(session.network) as messages:
        kept = [session.share(values) for _ in range(2)]
    workers, provider = ends(session)
    deltas = {m for _, _, m in messages if do(m) == "input"}
    words = [np.frombuffer(unpack(m)["delta"], np.uint64) for m in deltas if "delta" in unpack(m)]
    assert len(words) == 2, "the same to every worker"
    check_fair(np.concatenate(words))
    for node in kept:
        shares = [worker.values[node.id].a for worker in workers]
        for n in range(1, len(shares)):
            for some in itertools.combinations(shares, n):
                check_fair(sum(some))
        assert np.array_equal(sum(shares), provider.masks[node.id])
        assert (workers[0].values[node.id].delta + sum(shares) == 12345).all()


def test_openings_are_uniform_and_new_in_every_run():
    """The same computation with torch and numpy seeded alike opens other values."""
    opened, session = [], new_session(2)
    session.graph.one = 1000
    for _ in range(2):
        torch.manual_seed(1)
        np.random.seed(1)
        x = session.share(np.arange(-2048, 2048).reshape(64, 64))
        y = session.graph.scaled(session.graph.times("matmul", x, x), Fraction(1, 1000))
        relu = session.graph.times("mul", session.graph.above_zero(y), y)
        square = session.graph.times("mul", relu, relu)
        with recorded(session.network) as messages:
            session.reveal(session.graph.scaled(square, Fraction(1, 1000)))
        opened.append(np.concatenate(opened_words(messages)))
    one, other = opened
    assert len(one) == len(other) >= 12_000
    assert not np.intersect1d(one, other).size
    for words in opened:
        check_fair(words)


def test_a_seeded_torch_gives_other_shares(share_integers):
    shares = []
    for _ in range(2):
        torch.manual_seed(1)
        tensor = share_integers(torch.zeros(100, dtype=torch.long)).child
        workers, _ = ends(session_of(tensor))
        shares.append([worker.share(tensor.node.id) for worker in workers])
    for one, other in zip(*shares, strict=True):
        assert not (one == other).any()


def test_sharing_draws_nothing_from_torch(share):
    state = torch.get_rng_state()
    reveal(share([1.0, 2.0], "semi2k").relu())
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_stay_masked(group):
    """They are masked once; a step opens no more of a weight than its update's truncation does."""
    training = Training(group)
    training.step().get()
    for _ in range(2):
        start = training.session.network.counters.copy()
        training.step().get()
        for parameter in training.net.parameters():
            node = parameter.child.child.child.node
            assert node.form == "masked"
        assert training.session.network.counters.since(start)["rounds"] == ROUNDS
        check_in_step(training.session)


def test_what_is_masked_is_not_opened_again(session):
    """An owner's value never, others once."""
    graph = session.graph
    graph.one = 1000
    fresh = graph.refreshed(session.share(np.full((64, 64), 1000)))
    session.want(fresh, factor=False)
    session.compute()
    assert fresh.form == "share"
    sizes = []
    for x in (session.share(np.full((64, 64), 1000)), fresh, fresh):
        before = session.network.counters.anew
        with recorded(session.network) as messages:
            y = graph.scaled(graph.times("matmul", x, x), Fraction(1, 1000))
            assert (session.reveal(y) == 64_000).all()
        attempts = 1 + session.network.counters.anew - before  # each opens the same
        sizes.append(sum(map(len, opened_words(messages))) / attempts)
    assert sizes == [64 * 64, 2 * 64 * 64, 64 * 64]


def objects(session):
    """How much every party holds."""
    gc.collect()
    everyone = (*session_workers(session), syft.local_worker)
    held = [len(party.object_store._objects) for party in everyone]
    return counts(session), held, len(syft.ID_PROVIDER.generated)


def session_workers(session):
    (parties,) = (p for p in syft.local_worker.crypto_store.semi2k.values() if p.session is session)
    return *parties.workers, parties.provider


def test_nothing_piles_up(group):
    training = Training(group)
    for _ in range(8):  # enough for what nobody asks for to be computed: Session.PATIENCE
        training.step().get()
    before = objects(training.session)
    for _ in range(3):
        training.step().get()
        assert objects(training.session) == before


def test_nothing_piles_up_with_programs_of_many_shapes():
    """500 steps, a program of another shape nearly each: what is known at any end is what was used
    of late, and the rest is forgotten and works when it comes again."""
    session = new_session(2)
    session.MOST_PROGRAMS = 8
    graph, before = session.graph, None
    for step in range(500):
        n = 1 + step * 7 % 40
        x = session.share(np.arange(n))
        assert session.reveal(graph.times("mul", x, x)).tolist() == [i * i for i in range(n)]
        del x
        if step >= 50:
            before = before or counts(session)
            assert counts(session) == before
    workers, provider = ends(session)
    for end in (*workers, provider):
        assert len(end.programs) <= session.MOST_PROGRAMS + 1


def test_a_forgotten_program_comes_again_at_once(session):
    """Even as the very next, when the ends are told to forget it."""
    session.MOST_PROGRAMS = 1
    graph, x = session.graph, session.share(np.arange(3))
    for _ in range(3):
        for k in (1, 2):
            y = graph.times("mul", x, graph.array(np.arange(k, k + 3)))
            assert session.reveal(y).tolist() == [i * (i + k) for i in range(3)]
            del y
    check_in_step(session)


def test_an_index_of_numpys_poisons_nothing(share_integers):
    x = share_integers(torch.arange(12).view(3, 4))
    index = np.int64(2), np.int32(1)
    assert x[index].get().tolist() == 9
    assert x[np.array([0, 2])][:, np.int64(3)].get().tolist() == [3, 11]
    with pytest.raises(TypeError, match="as an integer"):
        x[np.float64(1)]
    assert (x[1] * x[2]).get().tolist() == [32, 45, 60, 77]


def test_equal_computations_make_one_program(share_integers, monkeypatch):
    """Many values that are computed at once, because too much is pending, come in one order."""
    monkeypatch.setattr(Session, "MOST_PENDING", 40)
    x = share_integers(range(20))
    session = x.child.session

    def compute():
        values = [x[i : i + 4] * x[2 * i] for i in range(8)]
        return sum(values).get()

    assert compute().tolist() == [sum(2 * i * (i + k) for i in range(8)) for k in range(4)]
    compute()
    before = list(session._known)
    for _ in range(5):
        compute()
    assert sorted(session._known) == sorted(before)


def test_revealing_what_is_public_takes_no_message(share):
    zero = share([1.5], "semi2k") * 0 + 1
    with recorded(session_of(zero).network) as messages:
        assert reveal(zero).tolist() == [1.0]
    assert messages == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e17])
def test_values_beyond_the_ring_are_not_shared(share, value):
    with pytest.raises(OverflowError, match="too large to be shared"):
        share([1.0, value], "semi2k")
