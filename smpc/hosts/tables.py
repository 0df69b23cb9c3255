"""An owner's data as a table: numbers in columns, and a class for each row.

    3,30,malignant,benign           how many rows and columns, and what the classes are called
    17.99,10.38,122.8,...,0         a row: its numbers, and the number of its class

This is the format of scikit-learn's own CSV files. Every fifth row is for testing. A column is
standardised by the mean and the deviation of the owner's own training rows, so that nobody else
needs to know either.
"""

import pathlib

import numpy as np

from smpc.arguments import PRECISIONS
from smpc.files import FileError, named, regular

NAME = "rows.csv"  # of the file in an owner's folder
EVERY = 5  # of so many rows the last is for testing
MOST = 1 << 26  # bytes of a file
LARGEST = 1e100  # that a number may be: its square is one
FARTHEST = 100  # deviations from the mean; of more, weighted sums leave the ring unseen


class TableError(FileError):
    """A table that is missing, damaged or of something else; the message is one line."""


class Table:
    """What one owner has.

    Args:
        rows: float64 (n, columns + 1), the number of the class last.
        classes: what they are called, a list.
    Attributes:
        sets: "train" and "test": float32 (n, columns), standardised, and int64 (n,), the classes.
        n_train, n_test: numbers of rows; `shapes`: as `owners.SHAPES`.
    Raises:
        TableError: a number is too far from the others of its column.
    """

    def __init__(self, rows, classes):
        self.rows, self.classes = rows, classes
        is_test = np.arange(len(rows)) % EVERY == EVERY - 1
        features, labels = rows[:, :-1], rows[:, -1].astype(np.int64)
        mean, deviation = features[~is_test].mean(axis=0), features[~is_test].std(axis=0)
        features = (features - mean) / np.where(deviation > 0, deviation, 1)
        for row, column in np.argwhere(~(abs(features) <= FARTHEST)):
            raise TableError(
                f"row {row + 1}, column {column + 1}: {rows[row, column]:g} is more than "
                f"{FARTHEST} deviations from the mean of the training rows: a mistake?"
            )
        features = features.astype(np.float32)
        self.sets = {
            which: (features[chosen], labels[chosen])
            for which, chosen in (("train", ~is_test), ("test", is_test))
        }
        self.n_train, self.n_test = (len(labels) for _, labels in self.sets.values())
        self.shapes = shapes_of(features.shape[1])

    def dealt(self, n):
        """Its rows among n owners, as cards are: a `Table` for each."""
        return [Table(self.rows[k::n], self.classes) for k in range(n)]

    def content(self):
        """The bytes of its file."""
        lines = [[str(n) for n in (len(self.rows), self.rows.shape[1] - 1)] + self.classes]
        lines += [[*map(repr, row[:-1]), str(int(row[-1]))] for row in self.rows.tolist()]
        return "".join(",".join(line) + "\n" for line in lines).encode()

    def batch(self, which, start, stop, digits):
        """The rows from `start` to before `stop` of a set, with so many decimal digits.

        Returns:
            a dict of int64 arrays, numbers times 10^digits, cut off after the point: "rows"
            (B, columns), "labels" (B,).
        Raises:
            ValueError: there are no such rows, is no such set, or no such precision.
        """
        if which not in self.sets or digits not in PRECISIONS["semi2k"]:
            raise ValueError(f"no set {which!r} with {digits} decimal digits")
        features, labels = self.sets[which]
        if not 0 <= start < stop <= len(labels):
            raise ValueError(f"no {which} items {start} to {stop}: there are {len(labels)}")
        # in float32, as syft's fix_precision, which cuts off what is after the point
        rows = (features[start:stop] * np.float32(10**digits)).astype(np.int64)
        return {"rows": rows, "labels": labels[start:stop] * np.int64(10**digits)}


def shapes_of(columns):
    """What an owner of so many columns shares of each batch; see `owners.SHAPES`."""
    return {which: {"rows": (columns,), "labels": ()} for which in ("train", "test")}


def read(path):
    """The `Table` in a CSV file.

    Raises:
        TableError: there is none, or something in it is wrong: the message says in which line.
    """
    with named(path, TableError), regular(path, MOST) as file:
        content = file.read()
    try:
        first, *lines = content.decode().splitlines() or [""]
        n, columns, classes = _header(first)
        if len(lines) != n:
            raise TableError(f"its first line says {n} rows, and it has {len(lines)}: damaged?")
        rows = [_row(k, line, columns, classes) for k, line in enumerate(lines, 1)]
        return Table(np.array(rows), classes)
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: it is not text") from error
    except TableError as error:
        raise TableError(f"{path}: {error}") from error


def _header(line):
    """How many rows and columns there are, and the names of the classes."""
    n, columns, *classes = [*line.split(","), "", ""]
    numbers = [int(x) if x.isascii() and x.isdecimal() and len(x) < 10 else 0 for x in (n, columns)]
    classes = classes[:-2]
    if not all(numbers) or len(classes) < 2:
        raise TableError(
            "its first line is to have the number of rows, the number of columns before the class, "
            "and the names of the classes, such as 569,30,malignant,benign"
        )
    return *numbers, classes


def _row(k, line, columns, classes):
    """The numbers of row k, the first being 1."""
    texts = line.split(",")
    if len(texts) != columns + 1:
        raise TableError(f"row {k} has {len(texts)} numbers, not {columns} and the class")
    row = []
    for column, text in enumerate(texts, 1):
        try:
            number = float(text)
        except ValueError:
            number = np.nan
        if not abs(number) < LARGEST:
            raise TableError(f"row {k}, column {column}: {text[:20]!r} is no number")
        row.append(number)
    if row[-1] not in range(len(classes)):
        raise TableError(f"row {k} is of class {texts[-1][:20]}: use 0 to {len(classes) - 1}")
    return row


def read_part(folder):
    """The `Table` in an owner's folder; None: there is none."""
    path = pathlib.Path(folder) / NAME
    return read(path) if path.is_symlink() or path.exists() else None
