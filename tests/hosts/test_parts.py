"""A part of MNIST: the integers that the script shares of it, and what is refused as a part."""

import importlib
import itertools
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc import mnist
from smpc.arguments import PRECISIONS
from smpc.hosts import PROGRAM, parts
from smpc.hosts.__main__ import main
from smpc.hosts.parts import Part, PartError

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = mnist.SHA256
RAW = "data/MNIST/raw"


@pytest.fixture(scope="module")
def whole():
    """The `Part` that has all of MNIST."""
    mnist.prepare("data")
    return Part(RAW)


@pytest.fixture(scope="module")
def script_batches(parties):
    """script_batches(train, digits) -> pairs of int64 arrays: the batches that the script shares
    in fixed precision, by default arguments, data and target."""
    script = importlib.import_module("train_encrypted")
    args = script.parse_arguments([])

    def integers(tensor, digits):
        return np.array(tensor.fix_precision(precision_fractional=digits).child.child.tolist())

    def batches(train, digits):
        share_target = script.one_hot_of if train else lambda target: target.float()
        for data, target in script.get_data_loader(args, train):
            yield integers(data, digits), integers(share_target(target), digits)

    return batches


@pytest.fixture
def split(tmp_path):
    """split(*arguments) -> the folder in which each owner has its part."""

    def split(*arguments):
        out = tmp_path / "parts"
        main(["split", *map(str, arguments), "--out", str(out)])
        return out

    return split


@pytest.mark.parametrize("digits", PRECISIONS["semi2k"])
@pytest.mark.parametrize("which", ["train", "test"])
def test_the_integers_are_the_script_s(whole, script_batches, which, digits):
    """Bit for bit, all 256 values of a pixel and all ten labels among them."""
    pixels, labels = set(), set()
    target_name = {"train": "one_hot", "test": "labels"}[which]
    for i, (data, target) in enumerate(script_batches(which == "train", digits)):
        start, stop = 64 * i, 64 * (i + 1)
        batch = whole.batch(which, start, stop, digits)
        assert batch.keys() == {"images", target_name}
        for mine, theirs in ((batch["images"], data), (batch[target_name], target)):
            assert mine.dtype == theirs.dtype == np.int64
            assert mine.shape == theirs.shape
            assert np.array_equal(mine, theirs)
        pixels |= set(whole.images[which][start:stop].flat)
        labels |= set(whole.labels[which][start:stop])
    assert pixels == set(range(256))
    assert labels == set(range(10))


def test_all_of_mnist_stays_bytes(whole):
    assert (whole.n_train, whole.n_test) == (60_000, 10_000)
    held = [*whole.images.values(), *whole.labels.values()]
    assert sum(array.nbytes for array in held) == 70_000 * (28 * 28 + 1)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 10_001), (9_999, 10_002), (5, 5), (6, 5)])
def test_no_such_items(whole, start, stop):
    with pytest.raises(ValueError, match=f"no test items {start} to {stop}: there are 10000"):
        whole.batch("test", start, stop, 3)


@pytest.mark.parametrize(("which", "digits"), [("t10k", 3), (None, 3), ("test", 1), ("test", 8)])
def test_no_such_set_or_precision(whole, which, digits):
    with pytest.raises(ValueError, match="decimal digits"):
        whole.batch(which, 0, 1, digits)


# ---- What a part may lack, and what is refused ---------------------------------------------------


@pytest.fixture
def part(split):
    """A folder with a part of three training and two test items."""
    return split("--between", "a", "b", "--n-train-items", 6, "--n-test-items", 4) / "a"


def test_a_part_may_lack_a_set(part, tmp_path):
    trained, tested = tmp_path / "trained", tmp_path / "tested"
    for folder, names in ((trained, (IMAGES, LABELS)), (tested, (TEST_IMAGES, TEST_LABELS))):
        folder.mkdir()
        for name in names:
            shutil.copy(part / name, folder)
    assert [(Part(x).n_train, Part(x).n_test) for x in (part, trained, tested)] == [
        *((3, 2), (3, 0), (0, 2))
    ]
    (tested / TEST_LABELS).unlink()  # a client's, whose digits nobody knows
    batch = Part(tested).batch("test", 0, 2, 3)
    assert batch.keys() == {"images"}
    assert np.array_equal(batch["images"], Part(part).batch("test", 0, 2, 3)["images"])
    with pytest.raises(ValueError, match="no train items 0 to 1: there are 0"):
        Part(tested).batch("train", 0, 1, 3)


def missing(file):
    file.unlink()


def shortened(file):
    file.write_bytes(file.read_bytes()[:-1])


def lengthened(file):
    file.write_bytes(file.read_bytes() + b"\0")


def empty(file):
    file.write_bytes(b"")


def packed(file):
    shutil.copy(f"{RAW}/{file.name}.gz", file)


def all_of_mnist(file):
    shutil.copy(f"{RAW}/{file.name}", file)


def of_the_other_kind(file):
    other = {IMAGES: LABELS, LABELS: IMAGES, TEST_IMAGES: TEST_LABELS, TEST_LABELS: TEST_IMAGES}
    shutil.copy(file.with_name(other[file.name]), file)


def of_60001_items(file):
    header, rest = file.read_bytes()[:8], file.read_bytes()[8:]
    file.write_bytes(header[:4] + (60_001).to_bytes(4, "big") + rest)


def sparse(file):
    with file.open("r+b") as opened:
        opened.truncate(1 << 40)


def fifo(file):
    file.unlink()
    os.mkfifo(file)


def device(file):
    file.unlink()
    file.symlink_to("/dev/zero")


def folder(file):
    file.unlink()
    file.mkdir()


def link_to_nowhere(file):
    file.unlink()
    file.symlink_to("nowhere")


ANY_FILE = tuple(mnist.SHA256)
DAMAGES = [
    *itertools.product([shortened, lengthened], ANY_FILE, ["is damaged: "]),
    *itertools.product([sparse], ANY_FILE, [": 1,099,511,627,776 bytes, more than the "]),
    *itertools.product([empty, packed, of_the_other_kind], ANY_FILE, ["is no IDX file of bytes"]),
    *itertools.product([fifo, device, folder], ANY_FILE, [": not a file, but a folder"]),
    *itertools.product([link_to_nowhere], ANY_FILE, [": No such file or directory"]),
    *itertools.product([missing], (IMAGES, LABELS, TEST_IMAGES), [": No such file or directory"]),
    *itertools.product([of_60001_items], (IMAGES, TEST_IMAGES), ["60001 items have 47040800"]),
    (all_of_mnist, LABELS, "holds 60000 labels of 3 images"),
    (all_of_mnist, IMAGES, "holds 3 labels of 60000 images"),
]


@pytest.mark.parametrize(("damage", "name", "message"), DAMAGES)
def test_what_is_no_part(part, damage, name, message):
    file = part / name
    damage(file)
    named = file.with_name(LABELS) if "labels of" in message else file
    with pytest.raises(PartError) as raised:
        Part(part)
    assert str(raised.value).startswith(str(named))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@settings(deadline=None)
@given(
    name=st.sampled_from(ANY_FILE),
    where=st.integers(0, 15),
    value=st.integers(0, 255),
)
def test_no_byte_of_a_header_may_be_another(tmp_path_factory, name, where, value):
    folder = tmp_path_factory.mktemp("part")
    for other in ANY_FILE:
        n_dims = 3 if "images" in other else 1
        parts._write(folder / other, np.zeros((2, 28, 28)[:n_dims], np.uint8))
    assert Part(folder).n_train == 2
    content = bytearray((folder / name).read_bytes())
    where %= 16 if "images" in name else 8
    unchanged = content[where] == value
    content[where] = value
    (folder / name).write_bytes(content)
    if unchanged:
        assert Part(folder).n_test == 2
    else:
        with pytest.raises(PartError, match=name):
            Part(folder)


def test_a_label_that_is_no_digit(part):
    content = bytearray((part / TEST_LABELS).read_bytes())
    content[-1] = 10
    (part / TEST_LABELS).write_bytes(content)
    with pytest.raises(PartError, match=f"{TEST_LABELS} holds 10 as label 1, which is no digit"):
        Part(part)


def test_a_folder_without_items(tmp_path):
    for nothing in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(PartError, match=f"{nothing} holds no items: {IMAGES} and the like"):
            Part(nothing)


# ---- Splitting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owners", "n_train", "n_test", "sizes"),
    [
        (["alice", "bob"], 640, 640, [(320, 320)] * 2),
        (["z", "a", "m"], 10, 7, [(4, 3), (3, 2), (3, 2)]),
        (list("vwxyz"), 5, 13, [(1, 3), (1, 3), (1, 3), (1, 2), (1, 2)]),
    ],
)
def test_split(split, whole, capsys, owners, n_train, n_test, sizes):
    """One after the other the parts are the first items, in their order."""
    numbers = ["--n-train-items", n_train, "--n-test-items", n_test]
    out = split("--between", *owners, *numbers)
    assert capsys.readouterr().out.splitlines() == [
        f"{out / owner}: {train} training items and {test} test items"
        for owner, (train, test) in zip(owners, sizes, strict=True)
    ]
    read = [Part(out / owner) for owner in owners]
    assert [(part.n_train, part.n_test) for part in read] == sizes
    for which, n in (("train", n_train), ("test", n_test)):
        for arrays in ("images", "labels"):
            joined = np.concatenate([getattr(part, arrays)[which] for part in read])
            assert np.array_equal(joined, getattr(whole, arrays)[which][:n])
    assert sorted(file.name for file in out.glob("*/*")) == sorted(list(ANY_FILE) * len(owners))


def test_a_part_is_read_by_torchvision_too(part, tmp_path, whole):
    from torchvision.datasets import MNIST

    raw = tmp_path / "torchvision" / "MNIST" / "raw"
    raw.parent.mkdir(parents=True)
    shutil.copytree(part, raw)
    dataset = MNIST(raw.parents[1], train=True)
    assert np.array_equal(dataset.data.tolist(), whole.images["train"][:3])
    assert np.array_equal(dataset.targets.tolist(), whole.labels["train"][:3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--between", "alice"], "--between alice: name 2 to 5 different owners"),
        (["--between", *"abcdef"], "--between a b c d e f: name 2 to 5 different owners"),
        (["--between", "a", "b", "a"], "--between a b a: name 2 to 5 different owners"),
        *(
            (["--between", "alice", name], "no party may have such a name")
            for name in ("", "Bob", "../bob", "1a", "b" * 33, "bob\n", "bö")
        ),
        ([], "the following arguments are required: --between"),
        (["--between", "a", "b", "--n-train-items", 60001], "60001: use 2 to MNIST's 60000"),
        (["--between", "a", "b", "--n-test-items", 10001], "10001: use 2 to MNIST's 10000"),
        (["--between", "a", "b", "c", "--n-test-items", 2], "2: use 3 to MNIST's 10000"),
        (["--between", "a", "b", "--n-test-items", 0], "invalid positive int value: '0'"),
        (["--between", "a", "b", "--data-dir", "nowhere"], f"{IMAGES}.gz is missing"),
    ],
)
def test_what_is_not_split(split, fails, tmp_path, arguments, message):
    assert message in fails(PROGRAM, lambda: split(*arguments))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ANY_FILE)
def test_no_file_is_replaced(split, fails, tmp_path, name):
    mine = tmp_path / "parts" / "b" / name
    mine.parent.mkdir(parents=True)
    mine.symlink_to("mine")  # wherever it leads
    line = fails(PROGRAM, lambda: split("--between", "a", "b"))
    assert line.endswith(f"{mine} is there already: delete it, or name another --out\n")
    assert [mine.parent, mine] == sorted(mine.parents[1].rglob("*"))


def test_an_out_that_is_a_file(split, fails, tmp_path):
    (tmp_path / "parts").write_text("mine")
    line = fails(PROGRAM, lambda: split("--between", "a", "b"))
    assert line.endswith("parts: Not a directory\n")
    assert (tmp_path / "parts").read_text() == "mine"


def test_a_part_that_cannot_be_written(split, fails, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(parts, "write_whole", full)
    line = fails(PROGRAM, lambda: split("--between", "a", "b"))
    assert line.endswith("parts: No space left on device\n")
