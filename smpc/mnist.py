"""The MNIST files in `data/`: verified, unpacked, and read by `torchvision.datasets.MNIST`.

`data/` has torchvision's own layout, `MNIST/raw/`, and holds the four IDX files as gzip. They are
unpacked beside themselves on first use; nothing is ever downloaded. Every run checks the unpacked
files against the SHA-256 of the canonical ones.
"""

import gzip
import hashlib
import pathlib
import zlib

from smpc.files import FileError, write_whole

SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
N_TRAIN, N_TEST = 60_000, 10_000


class AtOnce:
    """The first `n_items` of a data set of `torchvision.datasets.MNIST`'s, a batch at a time: what
    torch's DataLoader takes, which asks for no base class.

    Args:
        transformation: of a batch of images, uint8 (B, 1, 28, 28).
    """

    def __init__(self, dataset, n_items, transformation):
        self.images, self.labels = dataset.data[:n_items, None], dataset.targets[:n_items]
        self.transformation = transformation

    def __len__(self):
        return len(self.labels)

    def __getitems__(self, indices):
        """Called by DataLoader for each batch: pairs of an image and its label."""
        images = self.transformation(self.images[indices])
        return list(zip(images, self.labels[indices], strict=True))


class DataError(FileError):
    """A file of the data set is missing, damaged or cannot be unpacked; the message says which."""


def prepare(data_dir: str | pathlib.Path):
    """Check the four files below `data_dir`, unpacking those that are still packed.

    Args:
        data_dir: a folder with `MNIST/raw/NAME` or `MNIST/raw/NAME.gz` for each NAME in `SHA256`.

    Raises:
        DataError: a file is missing, truncated or not the canonical one. No damaged file is
            replaced and none is left half-written.
    """
    raw = pathlib.Path(data_dir) / "MNIST" / "raw"
    for name, sha256 in SHA256.items():
        file, packed = raw / name, raw / f"{name}.gz"
        try:
            if file.exists():
                if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
                    raise DataError(f"{file} is damaged (wrong SHA-256): delete it")
            elif packed.exists():
                unpack(packed, file, sha256)
            else:
                raise DataError(
                    f"{packed} is missing: restore it, or name its folder by --data-dir"
                )
        except OSError as error:
            raise DataError(f"{error.filename or file}: {error.strerror or error}") from error


def unpack(packed: pathlib.Path, file: pathlib.Path, sha256: str):
    """Write `packed`, a gzip file, to `file` if what it holds has the digest `sha256`."""
    try:
        content = gzip.decompress(packed.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{packed} is damaged ({error}): restore it") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{packed} is damaged (wrong SHA-256): restore it")
    write_whole(file, content)
