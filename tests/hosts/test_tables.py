"""A table: what is shared of it, what `split` makes of it, and what is refused as one."""

import numpy as np
import pytest
import torch

from smpc.hosts import PROGRAM, tables
from smpc.hosts.__main__ import main
from smpc.hosts.tables import FARTHEST, NAME, Table, TableError, read, shapes_of

ROWS = 12
GOOD = "3,2,no,yes\n1,-2.5,0\n2,1e-3,1\n4,7,1\n"


@pytest.fixture
def table():
    """A `Table` of 12 rows of 3 columns."""
    random = np.random.default_rng(1)
    features, labels = random.normal(50, 7, (ROWS, 3)), random.integers(0, 2, (ROWS, 1))
    return Table(np.hstack([features, labels]), ["no", "yes"])


@pytest.mark.parametrize("digits", [2, 3, 7])
@pytest.mark.parametrize("which", ["train", "test"])
def test_it_becomes_what_a_script_would_share(parties, table, which, digits):
    features, labels = table.sets[which]
    batch = table.batch(which, 0, len(labels), digits)
    assert list(batch) == list(table.shapes[which])
    for values, shared in ((features, batch["rows"]), (labels, batch["labels"])):
        fixed = torch.from_numpy(values).float().fix_precision(precision_fractional=digits)
        assert np.array_equal(shared, fixed.child.child.numpy()) and shared.dtype == np.int64


def test_every_fifth_row_is_for_testing(table):
    trained, tested = (np.delete(table.rows, [4, 9], axis=0), table.rows[[4, 9]])
    mean, deviation = trained[:, :3].mean(axis=0), trained[:, :3].std(axis=0)
    assert (table.n_train, table.n_test) == (10, 2)
    for rows, (features, labels) in zip((trained, tested), table.sets.values(), strict=True):
        assert features == pytest.approx((rows[:, :3] - mean) / deviation, abs=1e-5)
        assert labels.tolist() == rows[:, 3].tolist()


def test_a_column_of_one_number():
    table = Table(np.array([[3.0, 1, 0], [3.0, 2, 1]]), ["no", "yes"])
    assert table.sets["train"][0][:, 0].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("which", "start", "stop", "digits"),
    [
        ("predict", 0, 1, 3),
        ("train", 0, 11, 3),
        ("train", 3, 3, 3),
        ("train", -1, 1, 3),
        ("train", 0, 1, 8),
    ],
)
def test_what_there_is_not(table, which, start, stop, digits):
    with pytest.raises(ValueError, match=r"^no "):
        table.batch(which, start, stop, digits)


# ---- The file ------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_was_written(table, tmp_path):
    (tmp_path / NAME).write_bytes(table.content())
    again = read(tmp_path / NAME)
    assert again.content() == table.content() and np.array_equal(again.rows, table.rows)
    assert again.classes == table.classes and again.shapes == shapes_of(3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "its first line is to have the number of rows"),
        ("3,2,yes", "its first line is to have the number of rows"),
        ("0,2,no,yes", "its first line is to have the number of rows"),
        ("3,0,no,yes", "its first line is to have the number of rows"),
        ("rows,2,no,yes", "its first line is to have the number of rows"),
        ("-3,2,no,yes", "its first line is to have the number of rows"),
        ("9" * 5000 + ",2,no,yes", "its first line is to have the number of rows"),
        (GOOD.replace("4,7,1\n", ""), "its first line says 3 rows, and it has 2: damaged?"),
        (GOOD + "1,1,1\n", "its first line says 3 rows, and it has 4: damaged?"),
        (GOOD.replace("4,7,1", "4,1"), "row 3 has 2 numbers, not 2 and the class"),
        (GOOD.replace("4,7,1", "4,7,7,1"), "row 3 has 4 numbers, not 2 and the class"),
        (GOOD.replace("-2.5", "two"), "row 1, column 2: 'two' is no number"),
        (GOOD.replace("-2.5", ""), "row 1, column 2: '' is no number"),
        (GOOD.replace("-2.5", "nan"), "row 1, column 2: 'nan' is no number"),
        (GOOD.replace("-2.5", "inf"), "row 1, column 2: 'inf' is no number"),
        (GOOD.replace("-2.5", "1e101"), "row 1, column 2: '1e101' is no number"),
        (GOOD.replace("7,1", "7,2"), "row 3 is of class 2: use 0 to 1"),
        (GOOD.replace("7,1", "7,0.5"), "row 3 is of class 0.5: use 0 to 1"),
        (GOOD.replace("7,1", "7,-1"), "row 3 is of class -1: use 0 to 1"),
    ],
)
def test_a_damaged_file(tmp_path, content, message):
    path = tmp_path / NAME
    path.write_text(content)
    with pytest.raises(TableError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)
    assert len(str(error.value)) < 300 + len(str(path))


def test_no_file(tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "bytes").write_bytes(b"\xff\n")
    for name, message in (
        ("none", "No such file or directory"),
        ("link", "No such file or directory"),
        (".", "not a file, but a folder, a device or a FIFO"),
        ("bytes", "it is not text"),
    ):
        with pytest.raises(TableError, match=f"{tmp_path / name}: {message}$"):
            read(tmp_path / name)


def test_a_number_far_from_all_others():
    """Of a test row, since no training row is farther from the mean than the root of their number:
    it would leave the ring, and nobody would see it."""
    rows = np.array([[0.0, k % 2, k % 2] for k in range(10)])
    rows[:, 0] = rows[:, 1]
    rows[4, 0] = 0.5 + 0.5 * FARTHEST
    Table(rows, ["no", "yes"])
    rows[9, 1] = 60
    with pytest.raises(TableError, match=r"^row 10, column 2: 60 is more than 100 deviations from"):
        Table(rows, ["no", "yes"])


# ---- split ---------------------------------------------------------------------------------------


@pytest.fixture
def split(tmp_path):
    """split(*arguments): what the command does, into tmp_path / "parts"."""

    def split(*arguments):
        main(["split", "--out", str(tmp_path / "parts"), *map(str, arguments)])

    return split


@pytest.fixture
def path(table, tmp_path):
    """The path of the table's file."""
    (tmp_path / "all.csv").write_bytes(table.content())
    return tmp_path / "all.csv"


def test_split_deals_the_rows(split, path, table, tmp_path, capsys):
    split("--between", "alice", "bob", "--table", path)
    parts = tmp_path / "parts"
    assert capsys.readouterr().out.splitlines() == [
        f"{parts / name}: 5 training items and 1 test items" for name in ("alice", "bob")
    ]
    for start, name in enumerate(("alice", "bob")):
        part = tables.read_part(parts / name)
        assert np.array_equal(part.rows, table.rows[start::2])
        assert [file.name for file in (parts / name).iterdir()] == [NAME]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--between", "alice"], "name 2 to 5 different owners"),
        (["--between", "a", "B"], "no party may have such a name"),
        (["--between", "a", "b", "--table", "nowhere.csv"], "nowhere.csv: No such file"),
    ],
)
def test_what_is_not_split(split, path, fails, tmp_path, arguments, message):
    assert message in fails(PROGRAM, lambda: split("--table", path, *arguments))
    assert list(tmp_path.iterdir()) == [path]


def test_fewer_rows_than_owners(split, path, fails, tmp_path):
    path.write_text(GOOD)
    line = fails(PROGRAM, lambda: split("--between", *"abcd", "--table", path))
    assert line.endswith(f"--table {path}: 3 rows for 4 owners\n")


def test_no_file_is_replaced(split, path, fails, tmp_path):
    mine = tmp_path / "parts" / "b" / NAME
    mine.parent.mkdir(parents=True)
    mine.symlink_to("mine")
    line = fails(PROGRAM, lambda: split("--between", "a", "b", "--table", path))
    assert line.endswith(f"{mine} is there already: delete it, or name another --out\n")
    assert [mine.parent, mine] == sorted(mine.parents[1].rglob("*"))
