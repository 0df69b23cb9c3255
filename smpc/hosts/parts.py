"""An owner's part of MNIST, in a folder of its own: made by `split`, read by `serve --data`.

    python -m smpc.hosts split --between alice bob      # makes parts/alice/ and parts/bob/

A part has MNIST's own files, IDX under the usual names, unpacked. Here they become the integers
that the script would share: normalised as `train_encrypted.get_data_loader` does, in fixed
precision.
"""

import functools
import math
import os
import pathlib
import struct

import numpy as np

from smpc import mnist
from smpc.arguments import MOST_WORKERS, PRECISIONS, path, positive
from smpc.files import FileError, named, prepare_folder, regular, write_whole
from smpc.hosts import tables
from smpc.hosts.configuration import is_name
from smpc.process import to_stdout

# Of each set: the files of its images and labels, and how many items there may be.
SETS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", mnist.N_TRAIN),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", mnist.N_TEST),
}
PREDICT = "predict"  # the set that a client has classified
SIDES, CLASSES = (28, 28), 10
# What an owner shares of each batch of a set, in this order: its shape for an item.
SHAPES = {
    "train": {"images": (1, *SIDES), "one_hot": (CLASSES,)},
    "test": {"images": (1, *SIDES), "labels": ()},
    PREDICT: {"images": (1, *SIDES)},
}
MEAN, DEVIATION = np.float32(0.1307), np.float32(0.3081)  # of MNIST's pixels, the tutorial's
_UINT8 = 0x0800  # what the first word of an IDX file says of its elements; it adds the dimensions


class PartError(FileError):
    """A part that cannot be made, or has a file that is missing, damaged, or of something else; the
    message is one line that says which."""


class Part:
    """The items that one owner has, as bytes; a batch at a time becomes what is shared of it.

    Args:
        folder: holds the files of both sets, or of one; the test images may have no labels.
    Attributes:
        images, labels: by set, "train" and "test": uint8 (n, 28, 28) and (n,); labels may be None.
        n_train, n_test: numbers of items; `shapes`: of what is shared of one.
    Raises:
        PartError: a file is missing, cannot be read, or does not hold what it should.
    """

    shapes = SHAPES

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        self.images, self.labels = {}, {}
        for which, (*names, most) in SETS.items():
            images, labels = (folder / name for name in names)
            # (a link that leads nowhere is there, and cannot be read)
            has_images, has_labels = map(os.path.lexists, (images, labels))
            self.images[which] = np.empty((0, *SIDES), np.uint8)
            self.labels[which] = None
            if has_images or has_labels:
                self.images[which] = _read(images, SIDES, most)
            if has_labels or (has_images and which == "train"):
                self.labels[which] = _read_labels(labels, most, len(self.images[which]))
        self.n_train, self.n_test = (len(self.images[which]) for which in SETS)
        if not self.n_train + self.n_test:
            raise PartError(f"{folder} holds no items: {SETS['train'][0]} and the like, unpacked")

    def batch(self, which, start, stop, digits):
        """The items from `start` to before `stop` of a set, with so many decimal digits.

        Returns:
            a dict of int64 arrays, numbers times 10^digits, cut off after the point: "images"
            (B, 1, 28, 28); of "train" also "one_hot" (B, 10), of "test" "labels" (B,) if there are
            any. "predict" is the test images, without labels.
        Raises:
            ValueError: there are no such items, is no such set, or no such precision.
        """
        if which not in (*SETS, PREDICT) or digits not in PRECISIONS["semi2k"]:
            raise ValueError(f"no set {which!r} with {digits} decimal digits")
        images = self.images["test" if which == PREDICT else which]
        if not 0 <= start < stop <= len(images):
            raise ValueError(f"no {which} items {start} to {stop}: there are {len(images)}")
        batch = {"images": fixed_pixels(digits)[images[start:stop, None]]}
        if which == "train":
            one_hot = self.labels[which][start:stop, None] == np.arange(CLASSES)
            batch["one_hot"] = one_hot * np.int64(10**digits)
        elif which == "test" and (labels := self.labels[which]) is not None:
            batch["labels"] = labels[start:stop] * np.int64(10**digits)
        return batch


@functools.cache
def fixed_pixels(digits):
    """What each of the 256 values of a pixel becomes: int64 (256,).

    In float32 and in the order of torchvision's ConvertImageDtype and Normalize, and of syft's
    `fix_precision`, which cuts off what is after the point: every rounding is theirs.
    """
    pixels = np.arange(256, dtype=np.float32) / np.float32(255)
    pixels = (pixels - MEAN) / DEVIATION
    return (pixels * np.float32(10**digits)).astype(np.int64)


def _read(path, item, most):
    """The array of an IDX file of bytes: uint8 (n, *item), of at most so many items."""
    n_dims = 1 + len(item)
    n_header, size_of_item = 4 * (1 + n_dims), math.prod(item)
    with named(path, PartError), regular(path, n_header + most * size_of_item) as file:
        content = file.read()
    header = content[:n_header].ljust(n_header, b"\0")
    magic, n, *sides = struct.unpack(f">{1 + n_dims}I", header)
    if magic != _UINT8 + n_dims:
        raise PartError(f"{path} is no IDX file of bytes with {n_dims} dimensions")
    if tuple(sides) != item:
        raise PartError(f"{path} holds images of {sides[0]} × {sides[1]}, not 28 × 28")
    if len(content) != (expected := n_header + n * size_of_item):
        raise PartError(f"{path} is damaged: {len(content)} bytes, {n} items have {expected}")
    return np.frombuffer(content, np.uint8, offset=n_header).reshape(n, *item)


def _read_labels(path, most, n_images):
    labels = _read(path, (), most)
    if len(labels) != n_images:
        raise PartError(f"{path} holds {len(labels)} labels of {n_images} images")
    if (wrong := np.flatnonzero(labels >= CLASSES)).size:
        raise PartError(f"{path} holds {labels[wrong[0]]} as label {wrong[0]}, which is no digit")
    return labels


# ---- python -m smpc.hosts split ------------------------------------------------------------------


def arguments(parser):
    """Add the options of `split`."""
    add, count = parser.add_argument, positive(int)
    add("--between", nargs="+", required=True, metavar="NAME", help="owners, in order")
    add("--data-dir", type=path, default="./data", help="folder that holds MNIST/raw/")
    add("--n-train-items", type=count, default=640, help="training items, of MNIST's 60,000")
    add("--n-test-items", type=count, default=640, help="test items, of MNIST's 10,000")
    add("--table", type=path, metavar="FILE", help="CSV file, to split that instead of MNIST")
    add("--out", type=path, default="parts", help="folder for a folder of each owner's, NAME/")


def main(args):
    """Give each owner its part of the first items: the first has the first of them, and so on; or
    its rows of a table.

    Raises:
        PartError: it makes no sense, MNIST cannot be read, or a file is there or not to be written.
        TableError: the table cannot be read.
    """
    owners, out = args.between, pathlib.Path(args.out)
    if args.table:
        _split_table(args.table, owners, out)
        return
    wanted = {"train": args.n_train_items, "test": args.n_test_items}
    _check(owners, out, wanted)
    try:
        mnist.prepare(args.data_dir)
    except mnist.DataError as error:
        raise PartError(error) from error
    whole = Part(pathlib.Path(args.data_dir) / "MNIST" / "raw")
    pieces = {}  # file name -> an array for each owner
    for which, n in wanted.items():
        images, labels, _ = SETS[which]
        pieces[images] = np.array_split(whole.images[which][:n], len(owners))
        pieces[labels] = np.array_split(whole.labels[which][:n], len(owners))
    for number, owner in enumerate(owners):
        with named(f"--out {args.out}", PartError):
            folder = prepare_folder(out / owner)
            for name, arrays in pieces.items():
                _write(folder / name, arrays[number])
        _say(folder, *(len(pieces[labels][number]) for _, labels, _ in SETS.values()))


def _split_table(path, owners, out):
    """Give each owner its rows: the first has the first, the second the second, and so on."""
    _check_owners(owners)
    _check_new(out / owner / tables.NAME for owner in owners)
    whole = tables.read(path)
    if (n := len(whole.rows)) < len(owners):
        raise PartError(f"--table {path}: {n} rows for {len(owners)} owners")
    for owner, table in zip(owners, whole.dealt(len(owners)), strict=True):
        with named(f"--out {out}", PartError):
            folder = prepare_folder(out / owner)
            write_whole(folder / tables.NAME, table.content())
        _say(folder, table.n_train, table.n_test)


def _say(folder, n_train, n_test):
    with to_stdout():
        print(f"{folder}: {n_train:,} training items and {n_test:,} test items")


def _check(owners, out, wanted):
    """Raise PartError if the arguments make no sense, or a file is there already."""
    _check_owners(owners)
    for which, n in wanted.items():
        *names, most = SETS[which]
        if not len(owners) <= n <= most:
            raise PartError(f"--n-{which}-items {n}: use {len(owners)} to MNIST's {most}")
        _check_new(out / owner / name for owner in owners for name in names)


def _check_owners(owners):
    for owner in owners:
        if not is_name(owner):
            raise PartError(f"--between {owner}: no party may have such a name")
    if len(set(owners)) < len(owners) or not 2 <= len(owners) <= MOST_WORKERS:
        raise PartError(f"--between {' '.join(owners)}: name 2 to {MOST_WORKERS} different owners")


def _check_new(files):
    for file in files:
        if os.path.lexists(file):
            raise PartError(f"{file} is there already: delete it, or name another --out")


def _write(path, array):
    """Write bytes, uint8 (n, ...), to an IDX file, whole or not at all."""
    header = struct.pack(f">{1 + array.ndim}I", _UINT8 + array.ndim, *array.shape)
    write_whole(path, header + array.tobytes())
