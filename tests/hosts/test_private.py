"""A private training on hosts: what its plan guarantees is found from its programs, and each worker
takes part in nothing else; each position is had once."""

import contextlib
import copy
import math
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch

from smpc.hosts import plans
from smpc.hosts.grammar import TRAINING
from smpc.hosts.loopback import Loopback, LoopbackError
from smpc.hosts.owners import SHAPES
from smpc.hosts.planning import Planning, plan_of
from smpc.hosts.plans import Plan, PlanError
from smpc.privacy import accounting
from smpc.semi2k.compiler import LEAST_SIGMA
from smpc.semi2k.noise import UNIT
from smpc.semi2k.session import Session
from smpc.semi2k.wire import Refused
from tests import records
from tests.hosts.conftest import (
    ARGUMENTS,
    BATCH,
    DIGITS,
    LAYER,
    WEIGHTS,
    Parties,
    Training,
    altered,
    initial,
)
from tests.hosts.test_plans import ODD, changed

EPSILON, RATE, CLIP = 8.0, 0.5, 8.0
STEPS = (("alice", 0), ("bob", 0), ("alice", BATCH), ("bob", BATCH))  # whose batch, from which item
ONCE = r"^position {} of the plan has been run already, and its guarantee covers it once"


def agreed():
    """The `Guarantee` of the plan of all tests."""
    return accounting.guarantee(
        EPSILON, 1e-5, 1, 2, CLIP, len(STEPS), math.prod(LAYER), LEAST_SIGMA
    )


class Private(Training):
    """A layer that takes sums of images by their labels for gradients, with noise; a step reveals
    nothing. (That no item counts more than so much is not what consent is about.)"""

    def __init__(self, session, step=None):
        super().__init__(session, step)
        session.graph.one = 10**DIGITS

    def step(self, batch, part=1.0, correlation=None, reveal=None):
        """One step on a batch, with a part of the noise; what `reveal` makes of the images and the
        sum is revealed."""
        graph, (images, wanted) = self.session.graph, batch
        x = graph.moved("reshape", images, (images.shape[0], LAYER[0]))
        total = graph.times("matmul", graph.moved("permute", wanted, (1, 0)), x)
        one = 10**DIGITS
        noisy, guarantee = total, agreed()
        if part:
            sigma = Fraction(part * guarantee.sigma / math.sqrt(2)) * one**2
            correlation = guarantee.correlation if correlation is None else correlation
            noisy = graph.noised(total, sigma, correlation, 0)
        move = graph.scaled(noisy, Fraction(RATE) / images.shape[0] / one)
        self.weights = graph.added("sub", self.weights, graph.rounded(move, 1))
        self.session.want(self.weights)
        if reveal is None:
            self.session.compute()
            return None
        return self.session.reveal(reveal(graph, images, total))

    def run(self, steps=STEPS, **options):
        """All of these steps, and the weights: int64 (10, 784)."""
        for owner, start in steps:
            self.step(self.batch(owner, start, start + BATCH), **options)
        return self.session.reveal(self.weights)


def plan_for(among, steps=STEPS, says=(), **options):
    """The `Plan` of a private training, of which its guarantee `says` something else; `options`: of
    `Private.step`."""
    planning = Planning(among.roster(), SHAPES)
    session = Session(among.roster(), planning)
    session.position = 0
    training = Private(session)
    training.run(steps, **options)
    training.save(1)
    training.load(1)
    n_items = BATCH * len(STEPS)
    arguments = ARGUMENTS | {"private": EPSILON, "lr": [RATE], "n_train_items": n_items}
    said = {**agreed()._asdict(), "correlation": list(agreed().correlation), "workers": 2}
    return plan_of(planning, among, TRAINING, arguments, WEIGHTS, said | dict(says))


@pytest.fixture(scope="module")
def plan(hosts):
    """The plan of all tests."""
    return plan_for(hosts.configuration)


@pytest.fixture
def planned(hosts, tmp_path, plan):
    """`Parties` under it, in memory."""
    parties = Parties(hosts, tmp_path, plan)
    yield parties
    parties.stop()


def revealed(planned):
    """(position, numbers) of all that each worker has revealed, by its journal."""
    return [
        [
            (e["position"], e["numbers"])
            for e in planned.entries(name, "revealed")
            if e["position"] is not None  # masking weights of a checkpoint anew
        ]
        for name in ("alice", "bob")
    ]


def sums(weights):
    """Of all steps' gradients, from weights at the end."""
    return (initial() - weights) / 10**DIGITS * BATCH / RATE


def is_noise(moved, guarantee, correlation, n_steps):
    """Check that sums of gradients, of so many steps, are the noise of all workers, but for what
    chance makes of so many coordinates."""
    past = []  # of each step's noise, its coefficients of the independent ones
    for independent in np.eye(n_steps):
        before = zip(correlation, reversed(past), strict=False)
        past.append(independent - sum((c / UNIT * y for c, y in before), np.zeros(n_steps)))
    expected = guarantee.sigma * np.linalg.norm(sum(past))
    assert abs(moved.std() / expected - 1) < 6 / math.sqrt(2 * moved.size)


# ---- The plan ------------------------------------------------------------------------------------


def test_it_is_consented_to_and_shown(hosts, plan):
    plan.check_parties(hosts.configuration)
    plan.check_weights()
    plan.check_privacy()
    assert plan.again == 0
    shown = plans.summary(plan).splitlines()
    assert set(agreed().lines()) <= set(shown)
    assert f"{len(STEPS) + 1} positions, each run once:" in shown
    assert "revealed in all: 7,840 to the server" in shown


def refused(plan, match):
    with pytest.raises(PlanError, match=match) as error:
        plan.check_privacy()
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"reveal": lambda graph, images, total: total}, "does not hold: position 0 reveals of"),
        (
            {"reveal": lambda graph, images, total: graph.moved("index", images, (0, 0, 14, 14))},
            "position 0 reveals of alice-data train 0:3 what has no noise$",
        ),
        ({"part": 0.1}, "position 0 adds less noise than its guarantee has$"),
        ({"part": 0.5**0.5}, "position 0 adds less noise than its guarantee has$"),
        ({"part": 0}, "position 4 reveals of alice-data train 0:3 what has no noise$"),
        ({"correlation": ()}, r"noise is correlated by \(\)$"),
        ({"steps": (*STEPS, STEPS[0])}, "it has 5 steps, more than its guarantee$"),
        ({"steps": (*STEPS[:3], STEPS[0])}, "is used again at position 3, before 4 steps$"),
        ({"says": {"epsilon": 2.0}}, "has epsilon 2.0, which is to be 8.0$"),
        ({"says": {"clip": 9.0}}, "has clip 9.0, which is to be 8.0$"),
    ],
)  # fmt: skip
def test_what_the_guarantee_does_not_cover_is_refused(hosts, options, match):
    refused(plan_for(hosts.configuration, **options), match)


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("again",), 1, "^a position may be run again, and its guarantee covers it once$"),
        (("guarantee",), None, "^it was made with --private, and guarantees nothing$"),
        (("guarantee", "workers"), 3, "^its guarantee does not hold: "),
        (("arguments", "private"), 2.0, "^its guarantee does not hold: .* epsilon 8"),
        (("arguments", "lr"), [2 * RATE], "position 0 adds less noise"),
    ],
)
def test_a_plan_that_says_otherwise_is_refused(plan, path, value, match):
    content = inside = copy.deepcopy(plan.content)
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    refused(Plan(content), match)


@pytest.mark.parametrize("where", ["guarantee", "arguments"])
def test_each_field_of_a_guarantee_is_checked(plan, where):
    """An odd value leaves no plan, or one that can be shown."""
    n_plans, n_refused = 0, 0
    for name in ("private", "delta", "clip", "momentum", *agreed()._asdict(), "workers"):
        if name not in plan.content[where]:
            continue
        for value in ODD:
            try:
                made = Plan(changed(plan.content, (where, name), value))
            except PlanError as error:
                n_refused += 1
                assert str(error).isprintable()
            else:
                n_plans += 1
                assert all(line.isprintable() for line in plans.summary(made).splitlines())
    assert n_refused > n_plans > 0


def test_noise_of_other_workers(hosts, plan):
    content = copy.deepcopy(plan.content)
    content["guarantee"]["workers"] = 3
    with pytest.raises(
        PlanError, match=r"^its guarantee is of other noise than that of 2 workers$"
    ):
        Plan(content).check_parties(hosts.configuration)


def test_a_plan_without_a_guarantee_is_as_before(hosts):
    hosts.plan.check_privacy()
    assert hosts.plan.guarantee is None


# ---- What the workers do -------------------------------------------------------------------------


def test_it_trains_with_the_noise_of_all_workers(planned):
    weights = Private(planned.in_memory()).run()
    is_noise(sums(weights), agreed(), agreed().correlation, len(STEPS))
    assert revealed(planned) == [[*((k, 0) for k in range(4)), (4, math.prod(LAYER))]] * 2


def test_another_run_of_a_position_is_refused(planned):
    """Also one that reveals nothing itself; by each worker, from its journal."""
    session = planned.in_memory()
    training = Private(session)
    weights = training.weights
    training.step(training.batch("alice"))
    for anew in range(3):
        if anew == 2:
            for name in planned.running:
                planned.make(name)
        if anew:
            session = planned.in_memory()
            training = Private(session)
            weights = training.weights
        training.weights, session.position = weights, 0
        with pytest.raises(Refused, match=ONCE.format(0)):
            training.step(training.batch("alice"))
    assert revealed(planned) == [[(0, 0)]] * 2


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_each_worker_refuses_another_run_by_itself(planned, who):
    training = Private(planned.in_memory())
    training.step(training.batch("alice"))
    session = planned.in_memory()
    for name in {"alice", "bob"} - {who}:
        session.network.ends[name].consent = None
    training = Private(session)
    with pytest.raises(Refused, match=ONCE.format(0)):
        training.step(training.batch("alice"))


def test_it_is_counted_before_anything_leaves(planned):
    """A worker whose journal says so has run it, though nobody has heard of it."""
    session = planned.in_memory()
    training = Private(session)
    carry = session.network.carry

    def carry_no_result(sender, receiver, message):
        if receiver == "server":
            raise ConnectionError
        return carry(sender, receiver, message)

    batch = training.batch("alice")
    session.network.carry = carry_no_result
    with contextlib.suppress(ConnectionError):
        training.step(batch)
    assert any(revealed(planned))
    training = Private(planned.in_memory())
    with pytest.raises(Refused, match=ONCE.format(0)):
        training.step(training.batch("alice"))


def test_a_resume_goes_on_where_a_checkpoint_was_made_and_repeats_nothing(planned):
    training = Private(planned.in_memory())
    training.step(training.batch("alice"))
    training.save(1)
    session = planned.in_memory(1)
    training = Private(session, 1)
    training.step(training.batch("bob"))
    session = planned.in_memory(1)  # broken off before the next checkpoint
    training = Private(session, 1)
    with pytest.raises(Refused, match=ONCE.format(1)):
        training.step(training.batch("bob"))
    assert revealed(planned) == [[(0, 0), (1, 0)]] * 2


def test_with_a_checkpoint_after_every_step_nothing_is_lost(planned):
    training = Private(planned.in_memory())
    for position, (owner, start) in enumerate(STEPS):
        training.step(training.batch(owner, start, start + BATCH))
        training.save(position + 1, position or None)
        for name in planned.running:
            planned.make(name)
        training = Private(planned.in_memory(position + 1), position + 1)
    weights = training.session.reveal(training.weights)
    # noise that is remembered is that of a session: here each step's was independent
    is_noise(sums(weights), agreed(), (), len(STEPS))


def test_a_server_that_asks_for_less_noise(planned):
    session = planned.in_memory()
    training = Private(session)
    with pytest.raises(Refused, match=r"has something else at position 0$"):
        training.step(training.batch("alice"), part=0.1)
    with altered(session, "run", position=None), pytest.raises(Refused, match=r"no such run$"):
        training.step(training.batch("alice"))


# ---- The script ----------------------------------------------------------------------------------


def test_a_private_training_by_the_script(tmp_path):
    """Trained on hosts it has the noise that its plan guarantees, and the journals say what was
    revealed; run again it ends with a line."""
    hosts, rate, batch = Loopback(tmp_path / "hosts", n_train=8, n_test=4), 0.02, 4
    model, options = tmp_path / "model.pt", ("--n-train-items", 8, "--n-test-items", 4)
    options += ("--batch-size", batch, "--test-batch-size", batch, "--epochs", 1, "--lr", rate)
    hosts.prepare()
    hosts.write_plan("--private", 8, *options, "--save-model", model)
    plan = plans.read(hosts.plan)
    follows = ("--plan", hosts.plan, "--save-model", model, "--out", tmp_path / "results")
    with hosts.serving():
        said = hosts.script(*follows)
        assert set(plan.guarantee.lines()) <= set(said.splitlines())
        shutil.rmtree(hosts.folder / "server" / "checkpoint")
        with pytest.raises(LoopbackError, match="position 0 of the plan has been run already, and"):
            hosts.script(*follows)
    record = records.read(tmp_path / "results")
    assert record["steps"] == []  # of the second run
    first = plans.made_weights(**plan.content["weights"])
    last = torch.load(model, weights_only=True).values()
    moved = [a.ravel() / 10**DIGITS - b.numpy().ravel() for a, b in zip(first, last, strict=True)]
    sums_of_all = np.concatenate(moved) * batch / rate
    is_noise(sums_of_all, plan.guarantee, plan.guarantee.correlation, 2)
    for name in hosts.workers:
        told = hosts.hosts("journal", hosts.folder / name)
        assert f"revealed: {2 + 1 + plan.guarantee.coordinates:,} numbers" in told
        assert "positions run more than once: 0" in told
