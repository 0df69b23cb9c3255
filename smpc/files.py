"""Files that are written whole or not at all, and read only if they can be."""

import contextlib
import errno
import fcntl
import functools
import io
import os
import pathlib
import stat
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

PRIVATE = 0o600  # mode of what is for its user alone


class FileError(Exception):
    """A file that cannot be read, written or used; the message is one line for the user.

    Attributes:
        status: the exit status of a program that ends with it.
    """

    status = 2


@contextlib.contextmanager
def named(name: str | pathlib.Path, kind: type[FileError] = FileError) -> Iterator[None]:
    """Turn an OSError into a FileError, or the `kind` of it, about `name`: an option and a path."""
    try:
        yield
    except OSError as error:
        raise kind(f"{name}: {error.strerror or error}") from error


def prepare_folder(folder: str | pathlib.Path) -> pathlib.Path:
    """Make `folder`, if need be, and check that files can be made in it.

    Raises:
        OSError: it cannot be made or written to.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(1 << 16))
        file.flush()
        os.fsync(file.fileno())  # a full disk says so here, at the latest
    return folder


def check_replaceable(path: pathlib.Path):
    """Check that nothing is at `path`, or a regular file that may be written.

    Raises:
        OSError: there is a folder, a link, a device or a FIFO, or a file that is write-protected.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "a folder; name a file in it")
    if stat.S_ISLNK(mode):
        raise OSError(errno.EEXIST, "a link; name a file itself")
    if not stat.S_ISREG(mode):
        raise OSError(errno.EEXIST, "a device or a FIFO; name a file")
    if not os.access(path, os.W_OK):
        raise OSError(errno.EACCES, "write-protected")


def check_writable(path: pathlib.Path):
    """Check that `whole` can write a file at `path`, making the folder that it is in.

    Raises:
        OSError: it cannot.
    """
    check_replaceable(path)
    prepare_folder(path.parent)
    temporary = _temporary(path)
    temporary.touch()  # its name is longer
    temporary.unlink()


@contextlib.contextmanager
def whole(path: pathlib.Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A binary file to write, under a temporary name; at the end it is synced and renamed to
    `path`, so that the file is never seen half-written.

    Args:
        mode: of the file, as far as the umask allows it.
    Raises:
        OSError: it cannot be written, or what stands at `path` is no file to be replaced; what
            stands there is untouched, no other file is left.
    """
    check_replaceable(path)
    temporary = _temporary(path)
    try:
        with open(temporary, "wb", opener=functools.partial(os.open, mode=mode)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        check_replaceable(path)
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too, is on the disk from here on
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path):
    return path.with_name(f".{path.name}.{os.getpid()}")


def write_whole(path: pathlib.Path, content: bytes, mode: int = 0o666):
    """Write `content` to `path` as `whole` does."""
    with whole(path, mode) as file:
        file.write(content)


@contextlib.contextmanager
def regular(path: str | pathlib.Path, most: int) -> Iterator[BinaryIO]:
    """A binary file to read.

    Raises:
        OSError: there is none, it is not a regular file, or has more than `most` bytes.
    """
    if not stat.S_ISREG(pathlib.Path(path).stat().st_mode):  # to open a device may change it
        raise OSError(errno.EINVAL, "not a file, but a folder, a device or a FIFO")
    # not to wait, if it has become a FIFO since
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise OSError(errno.EFBIG, f"{size:,} bytes, more than the {most:,} that it may have")
        yield file


def lock(path: pathlib.Path) -> io.FileIO:
    """Lock the file at `path`, made if need be, until what is returned is closed, or this process
    ends.

    Raises:
        OSError: it cannot be made; BlockingIOError: another process has it.
    """
    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    file = os.fdopen(number, "r+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file
