"""What a party keeps in a file of its own: msgpack, followed by its SHA-256."""

import hashlib
import pathlib

import msgpack

from smpc.files import PRIVATE, FileError, named, regular, write_whole

FORMAT = "semi2k checkpoint 2"
MOST = 1 << 32  # bytes
_DIGEST = hashlib.sha256().digest_size


class CheckpointError(FileError):
    """A file of a checkpoint is missing, damaged or another's; the message says which."""


def write(path: pathlib.Path, fields: dict):
    """Write `fields`, of what msgpack takes, to `path`, whole or not at all, for its user alone."""
    body = msgpack.packb({"format": FORMAT, **fields})
    write_whole(path, body + hashlib.sha256(body).digest(), PRIVATE)


def read(path: pathlib.Path) -> dict:
    """The fields that `write` wrote.

    Raises:
        CheckpointError: there is no such file, it is none of ours, damaged, or of another version.
    """
    with named(path, CheckpointError), regular(path, MOST) as file:
        content = file.read()
    body, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise CheckpointError(f"{path} is damaged")
    fields = msgpack.unpackb(body)
    if fields.pop("format") != FORMAT:
        raise CheckpointError(f"{path} is of another version of this program")
    return fields
