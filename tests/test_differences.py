"""docs/differences.md: how many of the tutorial's lines are in train_encrypted.py as they are."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
ROW = re.compile(r"\| `(\w+)` \| (\d+) \| (\d+) \|")


def lines(node):
    """Those of a definition, whatever its layout, without docstrings."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner):
            inner.body = inner.body[1:]
    return [line.strip() for line in ast.unparse(node).splitlines()]


def definitions(source):
    """Name -> lines, of the functions and classes of a program."""
    body = ast.parse(source).body
    return {
        node.name: lines(node) for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


@pytest.fixture(scope="module")
def counted():
    """Definition -> how many lines the tutorial's has, and how many of these the script has."""
    script = (ROOT / "train_encrypted.py").read_text()
    everywhere = {line for each in definitions(script).values() for line in each}
    return {
        name: (len(of_one), sum(line in everywhere for line in of_one))
        for name, of_one in definitions((ROOT / "tests" / "tutorial.txt").read_text()).items()
    }


def test_the_table(counted):
    rows = ROW.findall((ROOT / "docs" / "differences.md").read_text())
    assert {name: (int(n), int(same)) for name, n, same in rows} == counted


def test_the_script_is_short():
    assert len((ROOT / "train_encrypted.py").read_text().splitlines()) <= 250
