"""Files that are written whole or not at all."""

import contextlib
import os
import pathlib
import tempfile


def prepare_folder(folder):
    """Make `folder`, if need be, and check that files can be made in it.

    Returns:
        it as a pathlib.Path.
    Raises:
        OSError: it cannot be made or written to.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return folder


@contextlib.contextmanager
def whole(path):
    """A binary file to write, under a temporary name; at the end it is synced and renamed to
    `path`, so that the file is never seen half-written.

    Raises:
        OSError: it cannot be written; what stood at `path` is untouched, no other file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too, is on the disk from here on
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path, content):
    """Write `content`, bytes, to `path` as `whole` does."""
    with whole(path) as file:
        file.write(content)
