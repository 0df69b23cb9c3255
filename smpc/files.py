"""Files that are written whole or not at all."""

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


def write_whole(path, content):
    """Write `content`, bytes, to `path` under a temporary name, synced and then renamed, so that
    the file is never seen half-written.

    Raises:
        OSError: it cannot be written; what stood at `path` is untouched, no other file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
