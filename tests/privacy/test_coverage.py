"""What a plan's guarantee covers, on programs made by hand: each thing that is not is found."""

import math
import re
from typing import NamedTuple

import numpy as np
import pytest

from smpc.privacy import accounting, coverage
from smpc.semi2k.compiler import LEAST_SIGMA
from smpc.semi2k.program import Program, pack_program

ITEM, COORDINATES, STEPS, EPOCHS = (4, 3), 4, 3, 2
SIGMA = 2 * LEAST_SIGMA
GUARANTEE = accounting.Guarantee(8, 1e-5, 12.3, 0.85, EPOCHS, 8.0, STEPS, COORDINATES, (32, 24))
ONE, DIVISOR = 1000, 2000  # of weights, and of what has noise where it is rounded to weights
# so that a worker's noise in a weight is just that of `SIGMA`
RATE = SIGMA / DIVISOR / (GUARANTEE.sigma / math.sqrt(2)) * ITEM[0] / ONE
UPDATE = coverage.Update((RATE,), ONE, workers=2)


class Position(NamedTuple):
    """As `smpc.hosts.plans.Expected`, what is looked at."""

    name: bytes
    inputs: tuple
    outputs: tuple


def noise(register, of, slot=0, sigma=SIGMA, shape=(3,), correlation=(32, 24)):
    return "noise", (register,), (of,), (shape, sigma, correlation, slot)


WEIGHTS, BIAS = [noise(11, 10)], [noise(21, 20, slot=1, shape=(1,))]


def step(weight_noise=WEIGHTS, bias_noise=BIAS, extra=()):
    """A step: items (4, 3) and weights (3), (1) -> weights; sums of items get noise."""
    instructions = [
        ("sum", (10,), (0,), ((0,), False)),
        *weight_noise,
        ("truncate", (12, 13), (11,), ((3,), DIVISOR, 41, False)),
        ("sub", (14,), (1, 12), ()),
        ("index", (20,), (10,), ((("slice", 0, 1, None),),)),
        *bias_noise,
        ("truncate", (22, 23), (21,), ((1,), DIVISOR, 41, False)),
        ("sub", (24,), (2, 22), ()),
        *extra,
    ]
    inputs = (0, "share", ITEM), (1, "share", (3,)), (2, "share", (1,))
    return Program(pack_program(tuple(instructions), inputs, (14, 24)))


def showing():
    """Weights (3) -> nothing; they are revealed."""
    return Program(pack_program((("reveal", (), (1,), ((3,),)),), ((1, "share", (3,)),), ()))


def masking(pairs=((1, 11), (2, 12)), extra=()):
    """Weights masked anew: (input, mask of it)."""
    masks = [("mask", (out,), (of,), ((3,) if of == 1 else (1,), False)) for of, out in pairs]
    inputs = (1, "share", (3,)), (2, "share", (1,))
    return Program(pack_program((*masks, *extra), inputs, (11, 12)))


BATCHES = "alice-data train 0:4", "alice-data train 4:8", "bob-data train 0:4"


def labelled(batches=BATCHES * EPOCHS):
    """A position for each batch, each on the weights of the one before; then they are revealed."""
    positions = []
    for k, batch in enumerate(batches):
        before = (f"{k - 1}.0", f"{k - 1}.1") if k else ("public " + "a" * 64, "public " + "b" * 64)
        inputs = f"{batch} images, 3 digits", *before
        positions.append(Position(b"step", inputs, (f"{k}.0", f"{k}.1")))
    positions.append(Position(b"show", (f"{len(batches) - 1}.0",), ()))
    return positions


def check(
    positions=None, restore=((b"mask", (0, 1)),), guarantee=GUARANTEE, update=UPDATE, **programs
):
    named = {"step": step(), "show": showing(), "mask": masking()} | programs
    named = {name.encode(): program for name, program in named.items()}
    coverage.check(named, positions or labelled(), restore, guarantee, update)


def refused(match, **changes):
    with pytest.raises(ValueError, match=match) as error:
        check(**changes)
    assert "\n" not in str(error.value)


def test_a_private_training_is_covered():
    check()
    check(restore=())


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ([("reveal", (), (0,), (ITEM,))], "items"),
        ([("reveal", (), (10,), ((3,),))], "their sum"),
        ([("add", (30,), (14, 10), ()), ("reveal", (), (30,), ((3,),))], "added to it"),
        ([("scale", (30,), (11,), (1,)), ("sub", (31,), (30, 10), ()),
          ("reveal", (), (31,), ((3,),))], "its noise"),
    ],
)  # fmt: skip
def test_nothing_of_the_items_is_revealed_without_noise(extra, what):
    refused(
        r"^position 0 reveals of alice-data train 0:4 what has no noise$", step=step(extra=extra)
    )


def test_what_has_noise_may_be_revealed():
    check(step=step(extra=[("reveal", (), (11,), ((3,),))]))


def test_it_is_followed_from_position_to_position():
    """A position stores a sum of items in the place of weights, and another shows these; also where
    the plan has the other one first."""
    sums = (("sum", (10,), (0,), ((0,), False)),)
    kept = Program(pack_program(sums, ((0, "share", ITEM), (1, "share", (3,))), (10,)))
    keeps = Position(b"kept", (f"{BATCHES[0]} images, 3 digits", "2.0"), ("2.0",))
    shows = Position(b"show", ("2.0",), ())
    match = "reveals of alice-data train 0:4 what has no noise$"
    for last in ((keeps, shows), (shows, keeps)):
        refused(match, positions=[*labelled()[:-1], *last], kept=kept)


def test_what_is_not_a_training_item_may_be_revealed():
    items = Position(b"test", ("alice-data test 0:4 images, 3 digits",), ())
    reveal = pack_program((("reveal", (), (0,), (ITEM,)),), ((0, "share", ITEM),), ())
    check(positions=[*labelled(), items], test=Program(reveal))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"weight_noise": [noise(11, 10, sigma=SIGMA // 10)]}, "integers, fewer than it is to be$"),
        ({"weight_noise": [noise(11, 10, sigma=SIGMA * 9 // 10)]}, "^position 0 adds less noise"),
        ({"bias_noise": [noise(21, 20, 1, SIGMA * 9 // 10, (1,))]}, "^position 0 adds less noise"),
        ({"weight_noise": [noise(11, 10, correlation=())]}, r"noise is correlated by \(\)$"),
        ({"weight_noise": [noise(11, 10, correlation=(32, 25))]}, r"correlated by \(32, 25\)$"),
        ({"weight_noise": [noise(11, 10, slot=1)]}, "adds noise to a value twice$"),
        ({"weight_noise": [("scale", (11,), (10,), (1,))]}, "not on all 4 coordinates$"),
        ({"extra": [noise(30, 10, slot=2)]}, "not on all 4 coordinates$"),
    ],
)
def test_the_noise_is_what_the_guarantee_says(changes, match):
    refused(match, step=step(**changes))


def test_without_any_noise_what_is_revealed_in_the_end_is_found():
    none = [("scale", (11,), (10,), (1,))], [("scale", (21,), (20,), (1,))]
    refused("^position 6 reveals of alice-data train 0:4", step=step(*none))


def test_noise_is_as_large_as_it_is_in_a_weight():
    """Whatever it is multiplied by, it is compared where it is rounded."""
    doubled = [noise(9, 10, sigma=LEAST_SIGMA), ("scale", (11,), (9,), (2**64 - 2,))]
    check(step=step(doubled))
    more = [noise(9, 10, sigma=2 * SIGMA), ("truncate", (11, 8), (9,), ((3,), 3, 41, False))]
    refused("^position 0 adds less noise than its guarantee has$", step=step(more))


@pytest.mark.parametrize(
    "update",
    [
        {"rates": (RATE * 1.01,)},
        {"rates": (RATE, RATE * 1.01)},
        {"one": 10 * ONE},
    ],
)
def test_a_larger_rate_has_more_noise_in_a_weight(update):
    refused(r"^position [03] adds less noise", update=UPDATE._replace(**update))


def test_a_smaller_batch_has_more_noise_in_a_weight():
    batches = [b.replace("4:8", "4:7") for b in BATCHES]
    refused(r"^position 1 adds less noise", positions=labelled(batches))


@pytest.mark.parametrize(
    ("batches", "match"),
    [
        (BATCHES * 3, "it has 9 steps, more than its guarantee"),
        ([BATCHES[k] for k in (0, 1, 2, 0, 1, 1)], "4:8 is used again at position 5, before 3"),
        ([BATCHES[k] for k in (0, 1, 2, 1, 0, 2)], "4:8 is used again at position 3, before 3"),
        ([*BATCHES, "alice-data train 3:7"], "item 3 of alice-data is in two batches"),
        ([*BATCHES, "alice-data train 1:5"], "item 1 of alice-data is in two batches"),
    ],
)  # fmt: skip
def test_how_often_a_batch_is_used(batches, match):
    refused(match, positions=labelled(batches))


def test_a_batch_is_used_no_more_often_than_there_are_epochs():
    batches = [BATCHES[0], *"cd", BATCHES[0], *"ef", BATCHES[0]]
    batches = [b if b in BATCHES else f"{b}-data train 0:4" for b in batches]
    refused(
        "train 0:4 is used 3 times in 2 epochs$",
        positions=labelled(batches), guarantee=GUARANTEE._replace(steps=4),
    )  # fmt: skip


def test_a_batch_is_used_where_what_is_made_of_it_gets_noise():
    """A position stores the sum of a batch, which a step then adds noise to for another batch's."""
    keep = (("scale", (9,), (0,), (1,)),)
    keep = Program(pack_program(keep, ((0, "share", ITEM),), (9,)))
    positions = labelled()
    positions[4] = positions[4]._replace(inputs=("7.0", *positions[4].inputs[1:]))
    positions.append(Position(b"keep", (f"{BATCHES[2]} images, 3 digits",), ("7.0",)))
    refused(
        "bob-data train 0:4 is used again at position 4, before 3", positions=positions, keep=keep
    )


def test_steps_follow_each_other():
    positions = labelled()
    before = ("public " + "a" * 64, "public " + "b" * 64)
    positions[3] = positions[3]._replace(inputs=(positions[3].inputs[0], *before))
    refused("^position 3 may be run before position 2$", positions=positions)


@pytest.mark.parametrize(
    ("program", "kept"),
    [
        (masking(((1, 12), (2, 11))), (0, 1)),
        (masking(), (1, 0)),
        (masking(), (0, 0)),
        (masking(), (0, None)),
        (masking(extra=[("scale", (13,), (1,), (2,))]), (0, 1)),
    ],
)
def test_a_checkpoint_is_masked_anew_in_place(program, kept):
    refused("^the program that masks a checkpoint anew", mask=program, restore=[(b"mask", kept)])


def test_a_position_has_its_programs_inputs():
    positions = labelled()
    for changes in ({"inputs": positions[0].inputs[1:]}, {"outputs": ("0.0",)}):
        changed = [positions[0]._replace(**changes), *positions[1:]]
        refused("^position 0 has other inputs or outputs than its program$", positions=changed)


ARGUMENTS = {"private": 8, "delta": 1e-5, "epochs": EPOCHS, "clip": 8.0}


def said(**changes):
    about = ARGUMENTS["private"], ARGUMENTS["delta"], EPOCHS, 2, 8.0, STEPS, COORDINATES
    return accounting.guarantee(*about, LEAST_SIGMA)._replace(**changes)


def test_the_guarantee_is_the_accountants():
    coverage.check_accounting(said(), 2, **ARGUMENTS)


@pytest.mark.parametrize(
    ("guarantee", "workers", "arguments"),
    [
        ({"epsilon": 2}, 2, {}),
        ({"delta": 1e-6}, 2, {}),
        ({"of_worker": 9.0}, 2, {}),
        ({"noise_multiplier": 0.8}, 2, {}),
        ({"epochs": 1}, 2, {}),
        ({"clip": 4.0}, 2, {}),
        ({"correlation": ()}, 2, {}),
        ({"steps": 1}, 2, {}),
        ({}, 3, {}),
        ({}, 2, {"private": 2}),
        ({}, 2, {"epochs": 3}),
    ],
)
def test_a_guarantee_that_the_accountant_does_not_give(guarantee, workers, arguments):
    match = r"^its guarantee has \w+ [^\n]+, which is to be [^\n]+$"
    with pytest.raises(ValueError, match=match):
        coverage.check_accounting(said(**guarantee), workers, **ARGUMENTS | arguments)


def test_a_guarantee_of_nothing():
    with pytest.raises(ValueError, match=re.escape("epsilon must be above 0")):
        coverage.check_accounting(said(), 2, **ARGUMENTS | {"private": 1000})


def test_each_instruction_passes_on_what_it_takes():
    """What a program of unknown ways does with its inputs is followed: no op but noise ends it."""
    random = np.random.default_rng(1)
    for _ in range(50):
        ways, instructions = {0: {0}, 1: {1}, 2: {2}}, []
        for register in range(3, 20):
            x, y = random.integers(0, register, 2).tolist()
            instructions.append(("add", (register,), (x, y), ()))
            ways[register] = ways[x] | ways[y]
        inputs = tuple((k, "share", (1,)) for k in range(3))
        instructions.append(("reveal", (), (12,), ((1,),)))
        flow = coverage.flow_of(Program(pack_program(tuple(instructions), inputs, (19, 7))))
        assert flow == ((ways[19], ways[7]), ways[12], frozenset(), None)
