"""docs/operations.md: it misses no operation, and running each takes the rounds and bytes there."""

import re

import pytest

from benchmarks import operations as benchmark
from smpc.operations import OPERATIONS

NAMES = {names[0]: (function, names) for function, names in benchmark.names_by_operation().items()}


def lines_of(name):
    """Of a table, or of several, in the page."""
    page = benchmark.PAGE.read_text()
    table = page.split(f"<!-- {name} -->")[1].split(f"<!-- end of {name} -->")[0]
    return [line for line in table.splitlines() if line.startswith("|")]


@pytest.fixture(scope="module")
def documented():
    """The page's row of each operation, as cells by column."""
    columns, rows = None, {}
    for line in lines_of("operations"):
        cells = re.split(r" ?(?<!\\)\| ?", line)[1:-1]
        if cells[0] == benchmark.COLUMNS[0]:
            columns = cells
        elif name := re.match(r"`(\w+)`", cells[0]):
            assert name[1] not in rows
            row = dict(zip(columns, cells, strict=True))
            rows[name[1]] = {column: row.get(column, "") for column in benchmark.COLUMNS}
    return rows


@pytest.fixture(scope="module")
def parties_of_its_own(parties):
    """As the command makes them."""
    return benchmark.parties()


def test_every_name_is_there(documented):
    named = [re.findall(r"`(\w+)`", cells["operation"]) for cells in documented.values()]
    assert sorted(name for names in named for name in names) == sorted(OPERATIONS)


@pytest.mark.parametrize("name", NAMES)
def test_running_takes_what_is_documented(name, documented, parties_of_its_own):
    function, names = NAMES[name]
    row = benchmark.row(function, names, benchmark.run(name, benchmark.DIGITS, parties_of_its_own))
    exact = [column for column in benchmark.COLUMNS if column not in benchmark.ERRORS]
    assert {c: documented[name][c] for c in exact} == {c: row[c] for c in exact}


def test_refusals_are_those_documented(parties_of_its_own):
    assert lines_of("refused") == list(benchmark.table_of_refusals(parties_of_its_own))


def test_of_a_run_made_anew_the_last_attempt_counts():
    one, other, provider = benchmark.PARTIES

    def attempt(run, attempt):
        about = {"run": run, "attempt": attempt}
        opening = {"do": "open", "words": bytes(16), "bits": bytes(8), **about}
        dealing = {"do": "deal", "corrections": bytes(24), **about}
        return [(provider, other, dealing), (one, other, opening), (other, one, opening)]

    result = {"do": "result", "run": 1, "attempt": 0, "revealed": bytes(8)}
    results = [(one, "orchestrator", result), (other, "orchestrator", result)]
    messages = [*attempt(0, 0), *attempt(0, 1), *attempt(1, 0), *results]
    assert benchmark.cost_of(messages) == (2, 48, 40)
