"""docs/privacy.md: its numbers are the code's, what it names is there, and a step of its proof."""

import math
import pathlib
import re
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest

from smpc.privacy import accounting, clipping
from smpc.privacy.script import BOUNDS
from smpc.semi2k import noise
from smpc.semi2k.compiler import LEAST_SIGMA, WHOLE
from smpc.semi2k.noise import UNIT, Noise

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent
PAGE = (REPOSITORY / "docs" / "privacy.md").read_text()
WIDTHS, STEPS, COORDINATES = (128, 64, 10), 20, 109_386  # of the script's network
RELU, SQUARES = BOUNDS["relu"], BOUNDS["quadratic"]


def rows(first):
    """The cells of the page's table whose first column is called so, by its rows' first cells."""
    lines = PAGE.split(f"\n| {first} |".replace("  ", " "))[1].split("\n\n")[0].splitlines()[2:]
    cells = [re.split(r" ?(?<!\\)\| ?", line)[1:-1] for line in lines]
    return {name.replace("\\", ""): others for name, *others in cells}


def value(cell):
    """A cell's number, such as 1,536.2 or 4.61 · 10^12."""
    number, _, power = cell.strip("* ").removeprefix("or ").replace(",", "").partition(" · 10^")
    if number.startswith("10^"):
        number, power = "1", number[3:]
    return float(number) * 10 ** int(power or 0)


@pytest.mark.parametrize(("column", "bounds"), [(1, RELU), (2, SQUARES)])
def test_bounds(column, bounds):
    """The induction's, and from them what the code takes for the largest."""
    table = [value(cells[column]) for cells in rows("").values()]
    outputs, taken, error, back, before = table
    assert outputs == round(bounds.outputs(), 1)
    assert taken == pytest.approx(bounds.largest_input(), abs=0.05)
    assert error == round(2 * (bounds.outputs() + 1), 1)
    assert back == bounds.errors * bounds.weights
    slope = 1 if bounds is RELU else 2 * math.sqrt(bounds.inputs)
    assert before == slope * back
    assert max(error, before) == pytest.approx(bounds.largest_error(), abs=0.05)


@pytest.mark.parametrize(("column", "bounds"), [(1, RELU), (3, SQUARES)])
def test_truncations(column, bounds):
    """What is asked for is what the code asks for, as much as is needed; roundings have room."""
    table = rows("truncation")
    largest = bounds.largest()
    asked = {
        **dict.fromkeys(["z_l", "z_l² to a_(l+1)", "e_(l+1) W"], largest),
        **dict.fromkeys(
            ["the output's error", "e_l, ReLU", "e_l, squares"],
            max(largest, bounds.largest_error()),
        ),
        "|a_l|²": bounds.largest_input() ** 2,
        "|e_l|²": bounds.largest_error() ** 2,
        "factor · e_l": 8,
    }
    assert table.keys() == asked.keys()
    for name, cells in table.items():
        u, exact = value(cells[0]), 2**62 / value(cells[0])
        assert value(cells[-1]) == pytest.approx(exact, rel=2e-3)
        needs, says = cells[column : column + 2]
        if says.strip() not in ("", "C"):
            assert value(says) == pytest.approx(math.ceil(asked[name]), rel=1e-4)
            assert value(needs) <= value(says)
        power = 2 ** math.ceil(math.log2(asked[name] * u))
        assert asked[name] * u * (1 + 1e-4) + 10**5 < power <= 2**62


def test_numbers():
    slack = clipping.slack(sum(WIDTHS), RELU)
    norm = 3 * (RELU.errors**2 + 1) * (RELU.inputs**2 + 2)
    eta = 67 * 2 * 10 * STEPS * COORDINATES / LEAST_SIGMA**2
    for text in (
        f"{slack:.4f} for the {' + '.join(map(str, WIDTHS))}",
        f"= {norm:,}, of u = 10^10: {norm * 10**10 / 2**62:.2f} of 2^62",
        f"WHOLE = 60 · 64 = {WHOLE:,}",
        f"η is {eta * 1e9:.0f} · 10^-9",
        f"|a_l| < A = {RELU.inputs} and |e_l| < D = {RELU.errors}, w = {RELU.weights} with ReLU",
        f"w = {SQUARES.weights} with squares",
    ):
        assert text in re.sub(r"\s+", " ", PAGE)
    assert (RELU.inputs, RELU.errors) == (SQUARES.inputs, SQUARES.errors)
    assert 784 * (65_536 * 1000) ** 2 < 2**62 - 10 < 784 * (2**17 * 1000) ** 2


@pytest.mark.parametrize("epsilon", [2, 8])
def test_a_worker_who_has_the_model(epsilon):
    about = epsilon, 1e-5, 10, 2, 8.0, STEPS, COORDINATES, LEAST_SIGMA
    assert f"\n{accounting.guarantee(*about).lines()[1]}\n" in PAGE


def test_what_it_names_is_there():
    """Each test and file."""
    sources = [path.read_text() for path in (REPOSITORY / "tests").rglob("test_*.py")]
    tests = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(tests) > 15
    assert not {name for name in tests if not any(f"def {name}(" in s for s in sources)}
    for path in re.findall(r"`((?:tests|docs)/[\w/]+\.\w+)`", PAGE):
        assert (REPOSITORY / path).is_file()
    for module, name in re.findall(
        r"`(accounting|clipping|noise|compiler|script)\.(?!py)(\w+)", PAGE
    ):
        places = REPOSITORY.glob(f"smpc/*/{module}.py")
        assert any(re.search(rf"\b{name}\b", path.read_text()) for path in places)


@pytest.mark.parametrize("absorbing", [1, 2, 3, 4, 5])
def test_an_item_is_absorbed_exactly(absorbing):
    """An item's part of the sums, g, is what noises z + C s add more than z, s = g / n each; with C
    as the correlation has it, and where a worker has lost its history."""
    band, steps, lost = 5, 15, 8
    c = accounting.correlation(band)
    random = np.random.default_rng(absorbing)
    g = np.zeros(steps, dtype=int)
    g[[1, 6, 11]] = WHOLE * random.integers(-(2**30), 2**30, 3)
    s = g // absorbing
    total = np.zeros(steps, dtype=int)
    for worker in range(absorbing):
        loses = lost if worker == 0 else None
        z = random.integers(-(2**45), 2**45, steps)
        shift = [
            s[t]
            + sum(
                Fraction(c[k - 1] * int(s[t - k]), UNIT)
                for k in range(1, min(band - 1, t) + 1)
                if loses is None or not t - k < loses <= t
            )
            for t in range(steps)
        ]
        assert all(Fraction(x).denominator == 1 for x in shift)
        total += added(z + np.array(shift, dtype=int), c, loses) - added(z, c, loses)
    assert total.tolist() == g.tolist()


def added(z, correlation, loses):
    """What a worker adds in each step, whose z are these, and whose history is lost before one."""
    made, y = Noise(), []
    for step, drawn in enumerate(z):
        if step == loses:
            made = Noise()
        made.begin((step, 0), [(step - 1, 0)] if step else [])
        with mock.patch.object(noise, "discrete_gaussian", lambda *_, d=drawn: np.array([d])):
            y.append(int(made.add(np.zeros(1, np.uint64), 1, correlation, 0).view(np.int64)[0]))
    return np.array(y)
