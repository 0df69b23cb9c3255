"""A worker's noise: its own at every worker, step, attempt and run; correlated as it is said to be;
and had once for each value."""

import multiprocessing
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest

from smpc.semi2k import compiler, noise
from smpc.semi2k.noise import UNIT, Noise
from smpc.semi2k.program import Program, pack_program
from smpc.semi2k.provider import known_of
from tests.semi2k.conftest import ends, instructions, new_session

N = 20_000
SIGMA = 2**30
# Of N pairs of independent signs the mean product has a standard deviation of 0.007: it is beyond
# this with a probability of 2e-12, and of 1 or -1 where noise serves twice.
MOST_AGREEMENT = 0.05
CORRELATION = (32, 24, 20)


def drawn(made):
    """What a worker adds, as int64 (n,)."""
    return made.add(np.zeros(N, np.uint64), SIGMA, (), 0).view(np.int64)


def are_unrelated(*noises):
    pairs = [(a, b) for i, a in enumerate(noises) for b in noises[:i]]
    return bool(pairs) and all(
        not (a == b).all() and abs((np.sign(a) * np.sign(b)).mean()) < MOST_AGREEMENT
        for a, b in pairs
    )


def added(session, times=1, size=N, sigma=SIGMA, correlation=()):
    """What the workers add together to zeros, in each of so many runs: int64 (size,), in integers
    of which `sigma` are each worker's standard deviation."""
    zeros, sums = session.share(np.zeros(size, np.int64)), []
    with mock.patch.multiple(compiler, LEAST_SIGMA=1, WHOLE=1):
        for _ in range(times):
            node = session.graph.noised(zeros, Fraction(sigma), correlation, 0)
            sums.append(session.reveal(node))
    return sums


def parts_of(session):
    """What each worker's noise made in its last attempt, int64 (n,) of its slot 0."""
    workers, _ = ends(session)
    return [next(iter(worker._noise._made.values()))[0][0] for worker in workers]


# ---- Whose it is ---------------------------------------------------------------------------------


def test_noise_is_of_the_size_that_is_asked_for(session):
    """The whole of it: of n workers, n times the variance of each."""
    (total,) = added(session)
    n = len(session.roster.workers)
    # the sum of N squares: a relative standard deviation of 0.01
    assert abs((total / SIGMA).var() / n - 1) < 0.08
    assert abs((total / SIGMA).mean()) < 8 * (n / N) ** 0.5
    for part in parts_of(session):
        assert abs((part / SIGMA).var() - 1) < 0.08
    assert np.array_equal(sum(parts_of(session)), total)


def test_workers_steps_and_runs_have_noise_of_their_own(session):
    noises = []
    for _ in range(2):
        added(session)
        noises += parts_of(session)
    assert are_unrelated(*noises)


def test_sessions_have_noise_of_their_own():
    np.random.seed(1)
    (one,) = added(new_session(2))
    np.random.seed(1)
    (other,) = added(new_session(2))
    assert are_unrelated(one, other)


def test_two_noises_of_one_run(session):
    zeros, graph = session.share(np.zeros(N, np.int64)), session.graph
    with mock.patch.multiple(compiler, LEAST_SIGMA=1, WHOLE=1):
        both = [graph.noised(zeros, Fraction(SIGMA), (), slot) for slot in (0, 1)]
        revealed = session.reveal(graph.concatenated(both, 0))
    assert are_unrelated(*np.split(revealed, 2))


def test_the_provider_has_no_part_in_it(session):
    """It deals nothing for noise, draws nothing, and knows what it knew of the value before."""
    workers, provider = ends(session)
    with mock.patch.object(noise, "fresh", wraps=noise.fresh) as fresh:
        added(session)
    assert [call.args for call in fresh.call_args_list] == [("noise",)] * len(workers)
    (program,) = provider.programs.values()
    (number,) = [i for i, step in enumerate(program.instructions) if step.op == "noise"]
    assert program.deals[number] is None
    mask = np.arange(3, dtype=np.uint64)
    assert known_of(program.instructions[number], [mask]) is mask


def test_noise_is_of_no_stream_that_the_provider_shares(session):
    """With all keys of the provider's held, and all that is drawn from them, it still differs."""
    keys = [bytes(range(i, i + 32)) for i in range(8)]
    with mock.patch("smpc.semi2k.provider.new_key", iter(keys).__next__):
        one = new_session(2)
    with mock.patch("smpc.semi2k.provider.new_key", iter(keys).__next__):
        other = new_session(2)
    assert are_unrelated(*added(one), *added(other))


def test_a_worker_that_adds_no_noise_has_no_key_of_its_own():
    session = new_session(2)
    with mock.patch.object(noise, "fresh", side_effect=AssertionError):
        x = session.share(np.arange(3))
        session.reveal(session.graph.times("mul", x, x))


def test_after_a_fork_a_child_draws_none_of_its_parents_noise():
    made = Noise()
    made.begin((0, 0), ())
    drawn(made)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def child():
        try:
            drawn(made)
        except RuntimeError as error:
            sending.send(str(error))

    process = context.Process(target=child)
    process.start()
    assert "belongs to the process that this one was forked from" in receiving.recv()
    process.join()
    assert process.exitcode == 0


def test_new_keys_end_what_is_remembered(session):
    """As after a fork: what follows is independent."""
    added(session, 2, size=3, correlation=(63,))
    before = [worker._noise for worker in ends(session)[0]]
    session._make_keys()
    with fixed([7] * 20):
        (total,) = added(session, size=3, correlation=(63,))
    workers, _ = ends(session)
    assert not any(worker._noise is old for worker, old in zip(workers, before, strict=True))
    assert total.tolist() == [7 * len(workers)] * 3


# ---- Correlation ---------------------------------------------------------------------------------


def fixed(values):
    """A context in which the next noises are these, in each of their elements."""
    left = iter(values)
    return mock.patch.object(
        noise, "discrete_gaussian", lambda words, sigma, n: np.full(n, next(left), np.int64)
    )


def correlated(z, correlation):
    """y_t = z_t - round(Σ c_k y_(t-k) / 64), halves up, in fractions."""
    y = []
    for z_t in z:
        before = sum(c * y_k for c, y_k in zip(correlation, y[::-1], strict=False))
        y.append(z_t - (Fraction(before, 64) + Fraction(1, 2)).__floor__())
    return y


@pytest.mark.parametrize("correlation", [(), (63,), (1,), CORRELATION, (32, 0, 0, 63)])
def test_correlation_is_exact(correlation):
    """Over many more steps than it reaches back; large noise and small, of either sign."""
    random = np.random.default_rng(1)
    z = [int(v) for v in random.integers(-(2**48), 2**48, 20)]
    z += [int(v) for v in random.integers(-9, 10, 20)] + [-1, 1, 32, -32, 33]
    made, y = Noise(), []
    with fixed(z):
        for step in range(len(z)):
            made.begin((step, 0), [(step - 1, 0)] if step else [])
            y.append(made.add(np.zeros(2, np.uint64), SIGMA, correlation, 0).view(np.int64))
    assert UNIT == 64
    assert [row.tolist() for row in y] == [[v, v] for v in correlated(z, correlation)]


def test_correlation_of_a_session(session):
    """Each worker's noise with its own alone, by slot."""
    n, steps = len(session.roster.workers), 6
    z = [[1000 * t + 17 * worker for worker in range(n)] for t in range(steps)]
    with fixed(v for row in z for v in row):
        totals = added(session, steps, size=2, correlation=CORRELATION)
    each = [correlated([row[worker] for row in z], CORRELATION) for worker in range(n)]
    assert [total.tolist() for total in totals] == [[sum(y)] * 2 for y in zip(*each, strict=True)]


def test_attempts_that_do_not_count_are_forgotten():
    made = Noise()

    def step(address, counts, z):
        made.begin(address, counts)
        with fixed([z]):
            return int(made.add(np.zeros(1, np.uint64), SIGMA, (32,), 0).view(np.int64)[0])

    assert step((0, 0), [], 64) == 64
    assert step((0, 1), [], 128) == 128, "the first was broken off"
    assert step((1, 0), [(0, 1)], 0) == -64
    assert step((1, 1), [(0, 1)], 0) == -64, "said again, and counted once"
    assert step((2, 0), [(1, 1)], 0) == 32
    assert step((3, 0), [], 0) == 32, "the one before does not count"
    made.begin((4, 0), [])
    made.begin((5, 0), [(3, 0)])  # which is long over
    assert [y.tolist() for y in made._past[0]] == [[-64]]


def test_an_attempt_made_anew_has_noise_of_its_own(force):
    session = new_session(2)
    graph, forced, seen = session.graph, force(session), []
    graph.one = 1000
    x = session.share(np.zeros(N, np.int64))
    native = Noise.add

    def add(made, *args):
        out = native(made, *args)
        seen.append(made._made[made._address][0][0])
        return out

    forced.where = lambda attempt, number: 5 if attempt == 0 else None
    with mock.patch.object(Noise, "add", add):
        session.want(kept := graph.rounded(graph.scaled(x, Fraction(1, 10)), 1))
        session.reveal(graph.noised(x, Fraction(1000), (32,), 0))
    assert session.network.counters.anew == 1
    assert not kept.pending
    assert len(seen) == 4
    assert are_unrelated(*seen)


def test_slots_and_sizes_are_apart():
    made = Noise()
    with fixed([64, 640, 0, 0, 0]):
        made.begin((0, 0), [])
        made.add(np.zeros(1, np.uint64), SIGMA, (32,), 0)
        made.add(np.zeros(1, np.uint64), SIGMA, (32,), 1)
        made.begin((1, 0), [(0, 0)])
        e = [made.add(np.zeros(1, np.uint64), SIGMA, (32,), slot).view(np.int64) for slot in (1, 0)]
        other = made.add(np.zeros((1, 2), np.uint64), SIGMA, (32,), 0)
    assert [int(x[0]) for x in e] == [-320, -32]
    assert not other.any() and other.shape == (1, 2)


# ---- What is refused -----------------------------------------------------------------------------


def test_noise_is_had_once(session):
    """Made anew for the same value it would be other noise, and their mean would have less."""
    x, graph = session.share(np.array([5, 6])), session.graph
    noisy = graph.noised(x, Fraction(1000), (), 0)
    session.reveal(noisy)
    with pytest.raises((RuntimeError, ValueError), match="spent"):
        session.reveal(noisy)
    with pytest.raises((RuntimeError, ValueError), match="spent"):
        session.reveal(graph.summed(noisy, (0,), False))


def test_noise_that_is_kept_serves_on(session):
    """A value that was wanted is stored with its noise, which is then the same."""
    x, graph = session.share(np.array([5, 6])), session.graph
    noisy = graph.noised(x, Fraction(1000), (), 0)
    session.want(noisy)
    first = session.reveal(noisy)
    assert np.array_equal(session.reveal(noisy), first)


def test_each_call_is_noise_of_its_own(session):
    """Unlike all other operations, of which equal ones make one node."""
    x, graph = session.share(np.array([5, 6])), session.graph
    one, other = (graph.noised(x, Fraction(10**6), (), 0) for _ in range(2))
    assert one is not other
    assert not np.array_equal(session.reveal(one), session.reveal(other))


def test_noise_on_what_is_public(session):
    graph = session.graph
    public = graph.array(np.array([1, 2]))
    for node in (public, graph.scaled(public, Fraction(1, 2)), graph.above_zero(public)):
        with pytest.raises(ValueError, match="noise on a public value"):
            graph.noised(node, Fraction(1000), (), 0)


def noise_program(*params, op="noise"):
    return pack_program([(op, (1,), (0,), params)], [(0, "share", (2,))], (1,))


def test_a_program_with_noise():
    program = Program(noise_program((2,), SIGMA, CORRELATION, 3))
    assert program.instructions[0].params == ((2,), SIGMA, CORRELATION, 3)
    assert program.drawn == program.corrections == 0
    Program(noise_program((2,), 2**45, (), 0))


@pytest.mark.parametrize(
    "params",
    [
        (),
        ((2,),),
        ((2,), SIGMA),
        ((2,), SIGMA, ()),
        ((2,), SIGMA, (), 0, 0),
        ((-2,), SIGMA, (), 0),
        ((2,), 0, (), 0),
        ((2,), 2**45 + 1, (), 0),
        ((2,), float(SIGMA), (), 0),
        ((2,), True, (), 0),
        ((2,), SIGMA, 32, 0),
        ((2,), SIGMA, (64,), 0),
        ((2,), SIGMA, (-1,), 0),
        ((2,), SIGMA, ("32",), 0),
    ],
)
def test_malformed_noise_is_refused(params):
    with pytest.raises(ValueError, match="no program"):
        Program(noise_program(*params))


def test_the_grid_is_fine_whatever_is_asked_for(session):
    """In integers there are 2^30 of a standard deviation, and an item's part is a whole number of
    units of c_k for any number of workers."""
    x, graph = session.share(np.array([5, 6])), session.graph
    for sigma in (Fraction(1, 3), Fraction(1000)):
        session.reveal(graph.noised(x, sigma, CORRELATION, 0))
    params = [i.params for i in instructions(session) if i.op == "noise"]
    assert len(params) == 2
    assert all(sigma >= 2**30 for _, sigma, *_ in params)
    scaled = [i.params[0] for i in instructions(session) if i.op == "scale"]
    assert scaled and all(k % (60 * UNIT) == 0 for k in scaled)
