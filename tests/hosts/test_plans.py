"""Consent: a plan's positions are run, on what they name, as often as it says; and nothing else."""

import base64
import copy
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.hosts import plans
from smpc.hosts.grammar import AGAIN
from smpc.hosts.journal import Journal, JournalError
from smpc.hosts.plans import Consent, Plan, PlanError
from smpc.semi2k.program import Program, name_of, pack_program
from smpc.semi2k.run import Order
from smpc.semi2k.wire import Refused, pack, unpack
from tests.hosts.conftest import (
    BATCH,
    DIGITS,
    STEPS,
    Training,
    altered,
    initial,
    losses_in_the_clear,
    owners_share_anything,
    plan_for,
)

ELSE = "the plan has something else at position {}$"


def goes_through(planned, position=0):
    """Check that, in a new session, all steps of the plan from a position on go through."""
    session = planned.in_memory(position)
    training = Training(session, position or None)
    losses = [training.step(training.batch(owner)).item() for owner in STEPS[position:]]
    expected = losses_in_the_clear(planned.hosts.parts)[position:]
    assert losses == pytest.approx(expected, rel=0.2)


def revealed(planned):
    """The positions that each worker has revealed, by its journal."""
    return [
        [entry["position"] for entry in planned.entries(name, "revealed")]
        for name in ("alice", "bob")
    ]


# ---- Positions -----------------------------------------------------------------------------------


def test_what_the_plan_says_is_run_and_noted(planned):
    goes_through(planned)
    assert revealed(planned) == [[0, 1, 2], [0, 1, 2]]
    assert {e["to"] for e in planned.entries("alice", "revealed")} == {"server"}
    assert {e["numbers"] for e in planned.entries("alice", "revealed")} == {1}
    assert [e["position"] for e in planned.entries("dealer", "run")] == [0, 1, 2]


def other_batch(session):
    training = Training(session)
    training.step(training.batch("bob"))


def other_items(session):
    owners_share_anything(session)
    training = Training(session)
    training.step(training.batch("alice", 1, 1 + BATCH))


def fewer_items(session):
    owners_share_anything(session)
    training = Training(session)
    training.step(training.batch("alice", 0, BATCH - 1))


def other_weights(session):
    training = Training(session)
    training.weights = session.share(initial() + 1)
    training.step(training.batch("alice"))


def other_constant(session):
    training = Training(session)
    images, wanted = training.batch("alice")
    training.step((images, session.graph.scaled(wanted, 2)))


def a_pixel(session):
    images, _ = Training(session).batch("alice")
    session.reveal(session.graph.moved("index", images, (0, 0, 14, 14)))


def a_sum_of_pixels(session):
    training = Training(session)
    images, _ = training.batch("alice")
    session.reveal(session.graph.summed(images, (0, 1, 2, 3), False))


def two_of_a_batch_swapped(session):
    training = Training(session)
    images, _ = training.batch("alice")
    _, wanted = training.batch("bob")
    training.step((images, wanted))


def to_another(session):
    training = Training(session)
    training.step(training.batch("alice"), "bob-data")


def the_next_position(session):
    session.position = 1
    training = Training(session)
    training.step(training.batch("bob"))


@pytest.mark.parametrize(
    "attack",
    [
        other_batch,
        other_items,
        fewer_items,
        other_weights,
        other_constant,
        a_pixel,
        a_sum_of_pixels,
        two_of_a_batch_swapped,
        to_another,
        the_next_position,
    ],
)
def test_anything_else_at_a_position_is_refused(planned, attack):
    session = planned.in_memory()
    with pytest.raises(Refused, match=r"the plan has something else at position [01]$"):
        attack(session)
    assert revealed(planned) == [[], []]
    goes_through(planned)


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_each_worker_refuses_by_itself(planned, who):
    session = planned.in_memory()
    others = [name for name in planned.running if name not in (who, "carol")]
    for name in others:
        session.network.ends[name].consent = None
    with pytest.raises(Refused, match=ELSE.format(0)):
        other_batch(session)
    goes_through(planned)


def test_no_run_goes_without_a_position_or_beyond_the_last(planned):
    session = planned.in_memory()
    training = Training(session)
    with altered(session, "run", position=None), pytest.raises(Refused, match=r"no such run$"):
        training.step(training.batch("alice"))
    session = planned.in_memory(len(STEPS))
    training = Training(session)
    with pytest.raises(Refused, match=ELSE.format(len(STEPS))):
        training.step(training.batch("alice"))
    goes_through(planned)


def test_a_position_is_run_as_often_as_the_plan_allows(hosts, planned):
    plan = planned.plan = plan_for(hosts.configuration, again=2)
    for times in range(3):
        for name in planned.running:  # the journal counts across restarts, too
            planned.make(name, plan)
        session = planned.in_memory()
        training = Training(session)
        training.step(training.batch("alice"))
        assert revealed(planned) == [[0] * (times + 1)] * 2
    for anew in (False, True):
        if anew:
            for name in planned.running:
                planned.make(name, plan)
        session = planned.in_memory()
        training = Training(session)
        with pytest.raises(Refused, match=r"^position 0 of the plan has been run already$"):
            training.step(training.batch("alice"))
        assert revealed(planned) == [[0] * 3] * 2


def test_in_one_session_it_counts_likewise(hosts, planned):
    plan = plan_for(hosts.configuration, again=1)
    for name in planned.running:
        planned.make(name, plan)
    session = planned.in_memory()
    training = Training(session)
    weights = training.weights
    for _ in range(2):
        training.weights, session.position = weights, 0
        training.step(training.batch("alice"))
    training.weights, session.position = weights, 0
    with pytest.raises(Refused, match=r"^position 0 of the plan has been run already$"):
        training.step(training.batch("alice"))
    assert revealed(planned) == [[0, 0], [0, 0]]


def test_what_another_plan_ran_is_not_counted(hosts, planned):
    first, second = (plan_for(hosts.configuration, again=0) for _ in range(2))
    assert first.digest != second.digest
    for plan in (first, second):
        planned.plan = plan
        for name in planned.running:
            planned.make(name, plan)
        goes_through(planned)
        with pytest.raises(Refused, match="has been run already"):
            goes_through(planned)


# ---- Checkpoints ---------------------------------------------------------------------------------


def test_a_checkpoint_closes_what_came_before_the_one_that_is_kept(planned):
    session = planned.in_memory()
    training = Training(session)
    training.step(training.batch(STEPS[0]))
    training.save(1)
    training.step(training.batch(STEPS[1]))
    training.save(2, keep=1)
    goes_through(planned, 2)
    goes_through(planned, 1)  # from the one that is kept
    session = planned.in_memory()
    training = Training(session)
    with pytest.raises(Refused, match=r"^position 0 of the plan has been run already$"):
        training.step(training.batch("alice"))
    for name in planned.running:
        planned.make(name)
    session = planned.in_memory()
    training = Training(session)
    with pytest.raises(Refused, match=r"^position 0 of the plan has been run already$"):
        training.step(training.batch("alice"))
    goes_through(planned, 1)


def test_no_checkpoint_is_loaded_that_was_not_made_under_the_plan(hosts, planned):
    session = planned.in_memory()
    training = Training(session)
    training.step(training.batch("alice"))
    training.save(1)
    other = plan_for(hosts.configuration)
    folders = {name: planned.folder / name / "checkpoint" for name in ("alice", "bob")}
    for folder in folders.values():
        (folder / planned.plan.digest[:16]).rename(folder / other.digest[:16])
    for name in planned.running:
        planned.make(name, other)
    planned.plan = other
    with pytest.raises(Refused, match=r"^no checkpoint of step 1 was made under this plan$"):
        Training(planned.in_memory(1), 1)


def test_nobodys_data_is_saved_in_a_checkpoint(planned):
    session = planned.in_memory()
    training = Training(session)
    training.save(1)
    images, labels = training.batch("alice")
    for node in (images, labels):
        with pytest.raises(Refused, match=r"^the plan has no such checkpoint$"):
            session.save([training.weights, node], "run", 2, 1)
    assert {file.name for file in planned.folder.rglob("*.shares")} == {"1.shares"}


def test_weights_of_a_checkpoint_are_masked_anew_by_the_plans_program_alone(planned):
    session = planned.in_memory()
    training = Training(session)
    training.step(training.batch("alice"))
    training.save(1)
    session = planned.in_memory(1)
    with altered(session, "run", to="bob-data"), pytest.raises(Refused, match=r"no such run$"):
        training = Training(session, 1)
    session = planned.in_memory(1)
    with altered(session, "run", outputs=(77,)), pytest.raises(Refused, match=r"no such run$"):
        training = Training(session, 1)
    goes_through(planned, 1)


# ---- Labels --------------------------------------------------------------------------------------


def share_as(session, ids, owner="alice-data"):
    """Ask an owner to share its batch under these numbers."""
    where = {"which": "train", "start": 0, "stop": BATCH, "digits": DIGITS}
    message = pack("share", ids=tuple(ids), **where)
    session.network.send("server", [(owner, message)])


def test_an_output_takes_the_place_of_no_other_value(planned):
    session = planned.in_memory()
    training = Training(session)
    batch = training.batch("alice")
    other = training.batch("bob")
    with (
        altered(session, "run", outputs=(other[0].id,)),
        pytest.raises(Refused, match=r"^a run may store nothing in the place of another value$"),
    ):
        training.step(batch)
    goes_through(planned)


def test_an_output_in_the_place_of_an_input_is_not_the_plans(planned):
    session = planned.in_memory()
    training = Training(session)
    batch = training.batch("alice")
    place = altered(session, "run", outputs=(training.weights.id,))
    with place, pytest.raises(Refused, match=ELSE.format(0)):
        training.step(batch)
    goes_through(planned)


def test_nothing_is_shared_under_the_number_of_an_output_that_may_yet_count(planned):
    session = planned.in_memory()
    training = Training(session)
    training.step(training.batch("alice"))
    number = training.weights.id
    with pytest.raises(Refused, match=rf"^value {number} is there already"):
        share_as(session, (number, number + 1))
    for receiver in ("alice", "bob"):  # whom the provider's refusal does not reach
        end = session.network.ends[receiver]
        values = np.zeros(4, np.uint64)
        public = pack("public", id=number, shape=(4,), values=values.data.cast("B"))
        with pytest.raises(Refused, match=rf"^value {number} is there already"):
            end.receive("server", public)
    goes_through(planned)


@pytest.mark.parametrize("receiver", ["alice", "bob"])
def test_nothing_is_shared_under_the_number_of_an_output_while_it_is_made(planned, receiver):
    session = planned.in_memory()
    training = Training(session)
    batch, refused = training.batch("alice"), []
    number = max(node.id for node in batch) + 1  # of what the run will store
    carry, about = session.network.carry, {"share": 0, "id": number, "shape": (1,), "label": None}

    def carry_and_share(sender, to, message):
        if unpack(message)["do"] == "open" and not refused:
            late = pack("input", **about, delta=bytes(8))
            with pytest.raises(Refused, match=rf"^value {number} is there already") as why:
                session.network.ends[receiver].receive("carol-data", late)
            refused.append(why)
        return carry(sender, to, message)

    session.network.carry = carry_and_share
    training.step(batch)
    assert training.weights.id == number
    assert refused
    goes_through(planned)


@pytest.mark.parametrize(
    "label",
    ["0.0", "public " + "a" * 64, "alice-data train 0:3 images, 3 digits", "carol-database"],
)
def test_an_owner_calls_what_it_shares_nothing_but_its_own(planned, label):
    session = planned.in_memory()
    owner = session.network.ends["carol-data"]
    for receiver, message in owner.share(5, np.arange(4), label):
        with pytest.raises(Refused, match=r"^carol-data shares what it calls"):
            session.network.ends[receiver].receive("carol-data", message)
    goes_through(planned)


@pytest.mark.parametrize("label", ["0.0", "alice-data train 0:3 images, 3 digits"])
def test_the_provider_is_told_of_public_values_as_such(planned, label):
    session = planned.in_memory()
    message = pack("public", id=5, shape=(4,), label=label)
    with pytest.raises(Refused, match=r"^a public value that is called"):
        session.network.ends["dealer"].receive("server", message)
    goes_through(planned)


def test_nothing_is_revealed_to_who_is_no_owner(planned):
    for reader in ("dealer", "alice", "nobody"):
        session = planned.in_memory()
        for name in ("alice", "bob", "dealer"):
            session.network.ends[name].consent = None
        training = Training(session)
        with pytest.raises(Refused, match=rf"^no owner is called {reader}, to whom"):
            training.step(training.batch("alice"), reader)
    goes_through(planned)


def test_a_loss_for_an_owner_reaches_that_owner_alone(hosts, planned):
    plan = planned.plan = plan_for(hosts.configuration, to="bob-data")
    for name in planned.running:
        planned.make(name, plan)
    session = planned.in_memory()
    training = Training(session)
    for owner in STEPS[:-1]:
        training.step(training.batch(owner))
    assert training.step(training.batch(STEPS[-1]), "bob-data") is None
    (((value,)),) = planned.read["bob"]
    assert value == pytest.approx(losses_in_the_clear(hosts.parts)[-1], rel=0.2)
    assert not planned.read["alice"] + planned.read["carol"] + planned.read["dealer"]
    assert [e["to"] for e in planned.entries("alice", "revealed")] == ["server"] * 2 + ["bob-data"]


def test_a_journal_that_cannot_be_written_reveals_nothing(planned):
    for name in ("alice", "bob"):
        session = planned.in_memory()
        training = Training(session)
        batch = training.batch("alice")
        planned.journals[name].close()
        with pytest.raises(JournalError, match=r"is closed$"):
            training.step(batch)
        planned.make(name)
    assert revealed(planned)[1] == []
    goes_through(planned)


# ---- Hand-made plans -----------------------------------------------------------------------------

N = 12  # values of one shape, more than a digit counts


def restoring(reveal=False):
    """A program that masks `N` shares anew, and stores each in its place; it may reveal one."""
    inputs = tuple((i, "share", (2,)) for i in range(N))
    masks = tuple(("mask", (N + i,), (i,), ((2,), False)) for i in range(N))
    reveals = (("reveal", (), (0,), ((2,),)),) if reveal else ()
    return pack_program((*masks, *reveals), inputs, tuple(range(N, 2 * N)))


def packed(key):
    """A program as a plan has it: hex name, base64."""
    return name_of(key).hex(), base64.b64encode(zlib.compress(key)).decode()


def with_restoring(plan, key):
    """A plan whose checkpoints are masked anew by a program."""
    name, text = packed(key)
    restore = [{"program": name, "outputs": list(range(N))}]
    programs = plan.content["programs"] | {name: text}
    return {**plan.content, "programs": programs, "restore": restore}


@pytest.fixture
def consent(hosts, tmp_path):
    """consent(plan) -> a `Consent` with a new journal."""
    journals = []

    def consent(plan):
        journals.append(Journal(tmp_path / f"{len(journals)}.jsonl"))
        return Consent(plan, journals[-1])

    yield consent
    for journal in journals:
        journal.close()


def order(key, inputs, outputs, position=None, to=None):
    """An `Order` of the server's."""
    about = Program(key), tuple(inputs), tuple(outputs)
    return Order("server", (0, 0), name_of(key), *about, position, to)


def test_weights_from_a_checkpoint_keep_their_places(hosts, consent):
    key = restoring()
    agreed = consent(Plan(with_restoring(hosts.plan, key)))
    labels = {i: f"2.{i}" for i in range(N)}
    assert order(key, range(N), range(N)).check(agreed, labels, labels) == {}
    swapped = [1, 0, *range(2, N)]
    for outputs in (swapped, [0, 0, *range(2, N)], [*range(N - 1), N]):
        with pytest.raises(Refused, match=r"^the plan has no such run$"):
            order(key, range(N), outputs).check(agreed, labels, labels)
    for other in (
        order(key, range(N), range(N), to="alice-data"),
        order(restoring(reveal=True), range(N), range(N)),
    ):
        with pytest.raises(Refused, match=r"^the plan has no such run$"):
            other.check(agreed, labels, labels)


def test_a_plan_whose_checkpoints_reveal_something_is_none(hosts):
    with pytest.raises(PlanError, match=r"masks a checkpoint anew reveals something$"):
        Plan(with_restoring(hosts.plan, restoring(reveal=True)))


def test_labels_are_those_of_the_plans_position(hosts, consent):
    agreed, expected = consent(hosts.plan), hosts.plan.expected(1)
    key = hosts.plan.programs[expected.name]
    assert expected.inputs[0] == "0.0"
    labels = dict(enumerate(expected.inputs))
    run = order(key, range(3), (7,), 1)
    assert run.check(agreed, labels, labels) == {7: "1.0"}
    for wrong in (
        {**labels, 0: "1.0"},
        {**labels, 0: None},
        {0: labels[0], 1: labels[2], 2: labels[1]},
        {1: labels[1], 2: labels[2]},
    ):
        with pytest.raises(Refused, match=ELSE.format(1)):
            run.check(agreed, wrong, labels)
    with pytest.raises(Refused, match=r"in the place of another value$"):
        run.check(agreed, labels, {*labels, 7})
    for outputs in ((0,), (1,)):
        with pytest.raises(Refused, match=ELSE.format(1)):
            order(key, range(3), outputs, 1).check(agreed, labels, labels)


def test_without_a_plan_anything_is_run_and_noted(consent, hosts):
    agreed = consent(None)
    key = restoring(reveal=True)
    order(key, range(N), range(N)).check(agreed, {}, {})
    agreed.reveal(order(key, range(N), range(N)), 2)
    run, told = agreed._journal.entries()
    assert (run["what"], told["what"], told["numbers"]) == ("run", "revealed", 2)
    assert run["position"] is None


def test_a_position_that_was_broken_off_is_not_counted(hosts, consent):
    agreed, expected = consent(hosts.plan), hosts.plan.expected(0)
    labels = dict(enumerate(expected.inputs))
    run = order(hosts.plan.programs[expected.name], range(3), (7,), 0)
    for _ in range(2 * AGAIN):
        run.check(agreed, labels, labels)
        agreed.anew(run)
    for _ in range(1 + AGAIN):
        run.check(agreed, labels, labels)
        agreed.reveal(run, 1)
    with pytest.raises(Refused, match=r"has been run already$"):
        run.check(agreed, labels, labels)
    again = Consent(hosts.plan, agreed._journal)
    assert again.times == {}  # no session under this plan is in that journal


# ---- Files ---------------------------------------------------------------------------------------


def is_a_line(error):
    """Whether an error is one line that moves no cursor."""
    text = str(error)
    return bool(text) and text.isprintable()


def test_a_plan_is_read_as_it_was_written(hosts, tmp_path):
    hosts.plan.save(tmp_path / "plan.json")
    again = plans.read(tmp_path / "plan.json")
    assert again.digest == hosts.plan.digest
    assert [again.expected(k) for k in range(4)] == [hosts.plan.expected(k) for k in range(4)]
    assert again.expected(-1) is None
    assert again.expected(3) is None
    again.check_parties(hosts.configuration)
    again.check_weights()


def test_a_plan_of_other_parties_or_weights_is_none_to_consent_to(hosts):
    content = copy.deepcopy(hosts.plan.content)
    content["parties"]["bob"] = "0" * 64
    with pytest.raises(PlanError, match=r"^it was made for other parties"):
        Plan(content).check_parties(hosts.configuration)
    content = copy.deepcopy(hosts.plan.content)
    content["weights"]["seed"] += 1
    with pytest.raises(PlanError, match=r"^its weights are not those that its seed makes"):
        Plan(content).check_weights()


def places(content, path=()):
    """The path of each value in what JSON can hold."""
    yield path
    within = enumerate(content) if isinstance(content, list) else ()
    for key, value in content.items() if isinstance(content, dict) else within:
        yield from places(value, (*path, key))


def changed(content, path, value):
    """It with another value at a path."""
    if not path:
        return value
    content = copy.deepcopy(content)
    inside = content
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return content


ODD = (
    *(
        None,
        True,
        -1,
        10**30,
        0.5,
        float("nan"),
        float("inf"),
        "",
        "x\n0 to 9",
        "\x1b[2J",
        "\u0664",
    ),
    *([], {}, [[]], ["0.0"], [None], {"program": "00"}, "0.0", "-1.0", "public 00", "9 images"),
    *("alice-data train 0:3", "alice-data train 0:3 images, 3 digits", "AAAA"),
)


def test_each_field_of_a_plan_is_checked(hosts):
    """An odd value anywhere leaves no plan, or one that can be shown and runs as it did."""
    plans_made, refused = 0, 0
    for path in places(hosts.plan.content):
        for value in ODD:
            try:
                plan = Plan(changed(hosts.plan.content, path, value))
            except PlanError as error:
                refused += 1
                assert is_a_line(error)
            else:
                plans_made += 1
                shown = plans.summary(plan)
                assert all(line.isprintable() for line in shown.splitlines())
                assert len(shown.splitlines()) <= len(plans.summary(hosts.plan).splitlines()) + 3
                assert plan.digest != hosts.plan.digest or plan.content == hosts.plan.content
    assert refused > plans_made > 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, bad) for name in ("n_train_items", "batch_size") for bad in (0, -1, 1.5, True)),
        *(("exact_truncation", 1), ("save_model", None), ("seed", -1), ("epochs", 10**30)),
    ],
)
def test_arguments_that_no_script_can_have(hosts, name, value):
    with pytest.raises(PlanError, match="its arguments is malformed"):
        Plan(changed(hosts.plan.content, ("arguments", name), value))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_random_and_mutated_plans(hosts, data):
    path = data.draw(st.sampled_from(sorted(places(hosts.plan.content), key=str)))
    try:
        plan = Plan(changed(hosts.plan.content, path, data.draw(JSON)))
        assert all(line.isprintable() for line in plans.summary(plan).splitlines())
    except PlanError as error:
        assert is_a_line(error)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 1 << 16), st.binary(max_size=8), st.integers(0, 8))
def test_random_and_mutated_plan_files(hosts, tmp_path_factory, where, other, removed):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    hosts.plan.save(path)
    content = path.read_bytes()
    where %= len(content)
    path.write_bytes(content[:where] + other + content[where + removed :])
    try:
        assert len(plans.read(path)) <= len(hosts.plan)
    except plans.ConfigurationError as error:
        assert is_a_line(error)


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b"\xff", b"{}", b"[]", b"5", b'"x"', b"null", b"9" * 5000]
)
def test_what_is_no_plan_is_said_in_a_line(tmp_path, content):
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    with pytest.raises(plans.ConfigurationError) as error:
        plans.read(path)
    assert is_a_line(error.value)
    assert str(error.value).startswith(f"{path}: ")


def test_a_program_that_is_not_what_its_name_says(hosts):
    content = copy.deepcopy(hosts.plan.content)
    names = list(content["programs"])
    content["programs"][names[0]] = packed(restoring(reveal=True))[1]
    with pytest.raises(PlanError, match=r"is not what its name says$"):
        Plan(content)


def test_a_program_that_is_unpacked_without_end(hosts):
    content = copy.deepcopy(hosts.plan.content)
    bomb = base64.b64encode(zlib.compress(bytes((1 << 26) + 1))).decode()
    content["programs"][next(iter(content["programs"]))] = bomb
    with pytest.raises(PlanError, match=r"too large, or cut off$"):
        Plan(content)


def test_the_summary_tells_what_is_revealed_and_of_whose_batches(hosts):
    text = plans.summary(plan_for(hosts.configuration, to="bob-data"))
    assert "revealed in all: 2 to the server, 1 to bob" in text
    lines = [line.split() for line in text.splitlines() if " reveals " in line]
    assert [(line[0], line[7], line[-1]) for line in lines] == [
        ("0", "alice-data:", "server"),
        ("1", "bob-data:", "server"),
        ("2", "alice-data:", "bob"),
    ]
    assert all("reveals 1 number(s) to" in " ".join(line) for line in lines)
