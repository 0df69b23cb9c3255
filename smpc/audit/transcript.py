"""What every party of a run receives, sends and draws: recorded on the way, read back from disk.

Four doors lead to or from a party: `Network.carry` (semi2k's messages), `VirtualWorker._send_msg`
(syft's own), the sources of randomness, the operating system's among them, and the files in which a
worker keeps its shares. While a `Recorder` runs, it stands in all of them, so that a protocol need
not declare what it says, and cannot forget to. (What the operating system gives is noted while an
end acts: all else that asks for it, such as a temporary file's name, is no party.) On a host of its
own a party passes the same doors, and its transcript holds no more than its own view; `merged` puts
those of a session together.

On disk: FILE, JSON Lines, and FILE.npz, for the user alone. The first line is the header; then one
line an entry, in the order of events. An entry is a message, an array that came with one, or an
array that was drawn, or is of a file:

    number    of the line          sender, receiver  ids of parties; equal: it drew, read or wrote
    round     openings before it that were seen (under syft's own protocols, messages before it)
    kind      message; share (of what an owner shares; under semi2k that, under a mask), dealt,
              masked (a share of what is to be opened), opened, revealed (a share of it), public,
              value (no protocol gives it a meaning); drawn; kept (a worker's shares, read from its
              file); written (a file as it is on the disk, byte by byte)
    name      of the message, the field, the source of randomness or the file that was written; what
              a worker draws to make noise of is called "noise words", and the noise itself "noise"
    bytes     of the message on the wire, or of the array
    dtype, shape, start    of an array: FILE.npz holds one flat array for each dtype, with this one
                           from element `start` on
    message   the number of the message that an array came with
    fields    of a message: what is not an array, with {"array": i} in the place of its i-th, and
              {"name": hex} in that of a program's name; of words from a stream {"address": [run,
              attempt]}; of what is kept {"file": its name, "sha256": hex, of the whole file}
"""

import functools
import hashlib
import json
import lzma
import math
import os
import pathlib
import sys
import types
import zipfile
from typing import NamedTuple

import numpy as np

from smpc.audit.messages import (
    SYFT_ANSWERED,
    SYFT_ASKED,
    as_array,
    join_semi2k,
    may_be_said,
    split_malformed,
    split_semi2k,
    split_syft,
)
from smpc.files import PRIVATE, FileError, check_writable, named, regular, whole, write_whole
from smpc.semi2k import noise, session, storage, wire
from smpc.semi2k.network import Network
from smpc.semi2k.owner import Owner
from smpc.semi2k.provider import Provider
from smpc.semi2k.randomness import Stream
from smpc.semi2k.wire import Roster

FORMAT, VERSION = "encrypted-training transcript", 4
# The owners of data and model: under semi2k they have an end of their own; under syft's protocols
# it is they who say and draw what the script does until all is shared.
(OWNERS,) = session.OWNERS
WORKERS = ("worker1", "worker2")  # there may be more, under semi2k
PROVIDER, ORCHESTRATOR = "crypto_provider", "me"
PARTIES = (*WORKERS, PROVIDER, ORCHESTRATOR)
NOISE, NOISE_WORDS = "noise", "noise words"  # that a worker draws for itself
SIMULATED = Roster(ORCHESTRATOR, PROVIDER, WORKERS, (OWNERS,))

MOST = 1 << 36  # bytes of a file

# What reading damaged values raises; RuntimeError: for a flag or a method that zipfile cannot do.
DAMAGED = (
    *(OSError, ValueError, TypeError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, lzma.LZMAError),
)


class TranscriptError(FileError):
    """A transcript that cannot be written or used; the message is one line for the user."""


class Entry(NamedTuple):
    """A line of a transcript; see the module's docstring."""

    number: int
    round: int
    sender: str
    receiver: str
    kind: str
    name: str
    bytes: int
    dtype: str | None = None
    shape: tuple = ()
    start: int = 0
    message: int | None = None
    fields: object = None


class Recorder:
    """Records a run from `start` to `save`; without a path all of its methods do nothing.

    Args:
        path: of the transcript, or None.
        arguments: of the run, for the header: a dict that JSON can hold.
    Raises:
        TranscriptError: its files cannot be written, or would replace what is no file.
    """

    def __init__(self, path, arguments):
        self.path, self.arguments = None if path is None else pathlib.Path(path), arguments
        if path is not None:
            with self._named():
                check_writable(self.path)
                check_writable(values_of(self.path))
        self._network, self._is_shared = None, False
        self._acting = []  # whose ends act, each on the request of the one before it
        self._makes_noise = False
        self._entries, self._values, self._sizes = [], {}, {}
        self._openings = set()  # (run, attempt, round) of those that the first worker has begun
        self._undo = []

    def start(self, network=None):
        """Stand in every door; `network`: that of a host, where perhaps nothing will be said."""
        if self.path is None:
            return
        if not isinstance(os.urandom, types.BuiltinFunctionType):
            raise TranscriptError("what the operating system draws is drawn by something else here")
        self._network = network
        self._replace(Network, "carry", self._semi2k_door)
        self._replace(Owner, "share", self._end_door)
        self._replace(Provider, "ahead", self._end_door)
        self._replace(storage, "read", self._read_door)
        self._replace(storage, "write", self._write_door)
        self._replace(Stream, "words", self._draw)
        self._replace(noise, "discrete_gaussian", self._noise_door)
        self._replace(os, "urandom", self._draw)
        self._replace(np.random, "randint", self._draw)
        syft, torch = map(sys.modules.get, ("syft", "torch"))
        if syft and hasattr(torch, "torch_hooked"):  # as the script has it; else nobody can use it
            self._replace(syft.VirtualWorker, "_send_msg", self._syft_door)
            # (where syft's hook has left torch's own functions)
            self._replace(torch.Tensor, "native_random_", self._draw)
            for name in ("native_randint", "native_randperm"):
                self._replace(torch, name, self._draw)

    def inputs_are_shared(self):
        """From here on the script is the orchestrator, and no longer the owner of what it has."""
        self._is_shared = True

    def save(self, cut_off=None):
        """Leave the doors and write the transcript, whole or not at all.

        Args:
            cut_off: why the session ended before it was over; None: it did not.
        Raises:
            TranscriptError: it cannot be written.
        """
        if self.path is None:
            return
        self.stop()
        lines = [json.dumps(_line(entry)) for entry in self._entries]
        ends = (*PARTIES, OWNERS) if self._network is None else self._network.ends
        header = {
            "format": FORMAT,
            "version": VERSION,
            "protocol": self.arguments["protocol"],
            "roster": self._roster._asdict(),
            "parties": [*ends],
            "session": self._network and self._network.session,
            "cut_off": cut_off,
            "arguments": self.arguments,
        }
        digest = header["sha256"] = _digest(header, lines)
        arrays = {dtype: np.concatenate(arrays) for dtype, arrays in self._values.items()}
        with self._named():
            with whole(values_of(self.path), PRIVATE) as file:
                np.savez(file, sha256=np.array(digest), **arrays)
            text = "\n".join([json.dumps(header), *lines, ""])
            write_whole(self.path, text.encode(), PRIVATE)

    def stop(self):
        """Leave the doors as they were."""
        while self._undo:
            setattr(*self._undo.pop())

    def _named(self):
        return named(f"--transcript {self.path}", TranscriptError)

    def _replace(self, owner, name, door):
        native = getattr(owner, name)
        self._undo.append((owner, name, native))
        setattr(owner, name, functools.wraps(native)(door(native)))

    @property
    def _roster(self):
        return SIMULATED if self._network is None else self._network.roster

    def _script(self):
        """Whom the script plays: the owner whose end is here, or the orchestrator."""
        return self._roster.orchestrator if self._is_shared else self._roster.owners[-1]

    def _actor(self):
        """Who acts."""
        return self._acting[-1] if self._acting else self._script()

    # ---- the doors

    def _semi2k_door(self, native):
        def carry(network, sender, receiver, message):
            self._network = network
            roles = tuple(map(network.roster.role, (sender, receiver)))
            known = any(may_be_said(message, *pair) for pair in (roles, *wire.GRAMMAR))
            name, fields, arrays = (split_semi2k if known else split_malformed)(message)
            round_ = len(self._openings)
            if name == "open" and sender == network.roster.workers[0]:
                self._openings.add((fields["run"], fields["attempt"], fields["round"]))
            self._message(sender, receiver, round_, len(message), name, fields, arrays)
            return self._acted(receiver, native, network, sender, receiver, message)

        return carry

    def _end_door(self, native):
        """Of what an end does without a message that asks it to."""

        def act(end, *args):
            return self._acted(end.id, native, end, *args)

        return act

    def _read_door(self, native):
        def read(path):
            fields = native(path)
            if "shares" in fields:
                shares = np.frombuffer(fields["shares"], np.uint64)
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                self._own("kept", "shares", shares, {"file": path.name, "sha256": digest})
            return fields

        return read

    def _write_door(self, native):
        def write(path, fields):
            native(path, fields)
            self._own("written", path.name, np.frombuffer(path.read_bytes(), np.uint8))

        return write

    def _syft_door(self, native):
        def send(worker, message, location):
            me = self._script()
            ends = [me if id == ORCHESTRATOR else id for id in (worker.id, location.id)]
            round_ = len(self._entries)
            name, *parts = split_syft(message)
            kind = SYFT_ASKED.get(name, "value")
            if self._actor() == OWNERS and kind == "value":
                kind = "share"
            self._message(*ends, round_, len(message), name, *parts, kind)
            reply = self._acted(location.id, native, worker, message, location)
            _, *parts = split_syft(reply)
            kind = SYFT_ANSWERED.get(name, "value")
            if kind == "revealed" and worker.id != ORCHESTRATOR:
                kind = "share"
            self._message(*ends[::-1], round_, len(reply), name, *parts, kind)
            return reply

        return send

    def _draw(self, native):
        name = native.__name__

        def draw(*args, **kwargs):
            drawn = native(*args, **kwargs)
            if self._acting or name != "urandom":
                about = {"address": args[1]} if name == "words" else None
                named_ = NOISE_WORDS if self._makes_noise and name == "words" else name
                self._own("drawn", named_, as_array(drawn), about)
            return drawn

        return draw

    def _noise_door(self, native):
        def discrete_gaussian(*args):
            self._makes_noise = True
            try:
                drawn = native(*args)
            finally:
                self._makes_noise = False
            self._own("drawn", NOISE, drawn)
            return drawn

        return discrete_gaussian

    def _acted(self, party, native, *args):
        self._acting.append(party)
        try:
            return native(*args)
        finally:
            self._acting.pop()

    # ---- the one place where anything is written down

    def _message(self, sender, receiver, round_, size, name, fields, arrays, kind=None):
        """Note a message; `arrays` are (name, kind, array), or arrays of the one `kind`."""
        number = len(self._entries)
        head = (number, round_, sender, receiver, "message", name, size)
        self._entries.append(Entry(*head, fields=fields))
        for item in arrays:
            what = item if kind is None else (name, kind, item)
            field, kind_, array = what
            self._array(sender, receiver, round_, kind_, field, array, number)

    def _own(self, kind, name, array, fields=None):
        """Note an array that whoever acts has drawn, read or written."""
        party, round_ = self._actor(), self._entries[-1].round if self._entries else 0
        self._array(party, party, round_, kind, name, array, None, fields)

    def _array(self, sender, receiver, round_, kind, name, array, message, fields=None):
        dtype, shape = array.dtype.name, array.shape
        start = self._sizes.get(dtype, 0)
        self._sizes[dtype] = start + array.size
        self._values.setdefault(dtype, []).append(array.reshape(-1).copy())
        head = (len(self._entries), round_, sender, receiver, kind, name, array.nbytes)
        self._entries.append(Entry(*head, dtype, shape, start, message, fields))


# ---- Reading -------------------------------------------------------------------------------------


def values_of(path):
    """The path of the values that belong to the transcript at `path`."""
    return path.with_name(path.name + ".npz")


class Transcript:
    """A recorded run, read from disk.

    Attributes:
        path: where it was read.
        protocol: its name; `arguments`: of the run, a dict.
        roster: the `wire.Roster` of all parties; `parties`: the ids of those whose views it holds.
        session: its id, where the parties are on hosts of their own; else None.
        cut_off: why it ended before it was over, or None.
        entries: a list of `Entry`.
    """

    def __init__(self, path):
        """Read and check the transcript at `path`, a pathlib.Path.

        Raises:
            TranscriptError: it or its values are missing, damaged, or of another version.
        """
        try:
            with named(path, TranscriptError), regular(path, MOST) as file:
                header, *lines = file.read().decode().split("\n")
            header = json.loads(header)
            found = header["format"], header["version"]
        except (ValueError, KeyError, TypeError):
            raise TranscriptError(f"{path} is damaged, or no transcript: record it anew") from None
        if found != (FORMAT, VERSION):
            wanted = f"{FORMAT} of version {VERSION}"
            raise TranscriptError(f"{path} is a {found[0]} of version {found[1]}, not a {wanted}")
        digest = header.pop("sha256", None)
        if digest != _digest(header, lines[:-1]):
            raise TranscriptError(f"{path} is damaged (wrong SHA-256): record it anew")
        self.protocol, self.arguments = header["protocol"], header["arguments"]
        self.parties, self.cut_off = header["parties"], header["cut_off"]
        self.session, roster = header["session"], header["roster"]
        self.roster = Roster(**roster | {k: tuple(roster[k]) for k in ("workers", "owners")})
        entries = [Entry(**json.loads(line)) for line in lines[:-1]]
        self.entries = [entry._replace(shape=tuple(entry.shape)) for entry in entries]
        self.path, self._values = path, self._read_values(values_of(path), digest)

    @staticmethod
    def _read_values(path, digest):
        try:
            with regular(path, MOST) as file, np.load(file) as arrays:
                values = {name: arrays[name] for name in arrays.files}
        except FileNotFoundError:
            raise TranscriptError(f"{path} is missing: it holds the transcript's values") from None
        except DAMAGED:
            raise TranscriptError(f"{path} is damaged: record the transcript anew") from None
        if values.pop("sha256", None) != digest:
            raise TranscriptError(f"{path} belongs to another transcript: record it anew")
        return values

    def view(self, party):
        """The `View` of a party, by its id.

        Raises:
            TranscriptError: it holds none of such a party.
        """
        if party not in self.parties:
            known = ", ".join(self.parties)
            raise TranscriptError(f"{self.path}: no party {party} in it, but {known}")
        own = [entry for entry in self.entries if party in (entry.sender, entry.receiver)]
        is_private = bool(self.arguments.get("private"))
        return View(self.protocol, party, self.roster, own, self._values, is_private)


class View:
    """All that one party receives, sends and draws.

    Attributes:
        protocol: of the run; `party`: its id; `roster`: the `wire.Roster` of all.
        entries: a list of `Entry`, in order.
        is_private: whether it is of a training with differential privacy.
    """

    def __init__(self, protocol, party, roster, entries, values, is_private=False):
        self.protocol, self.party, self.roster, self.entries = protocol, party, roster, entries
        self.is_private = is_private
        self._own = {entry.number for entry in entries}
        self._values = values

    def value(self, entry):
        """The array of one of its entries."""
        if entry.number not in self._own:
            raise PermissionError(f"entry {entry.number} is not in the view of {self.party}")
        values = self._values[entry.dtype][entry.start : entry.start + math.prod(entry.shape)]
        return values.reshape(entry.shape)

    def arrays(self, *kinds, name=None, sender=None, receiver=None):
        """Its entries with an array, of these kinds, and of this name and these ends if given."""
        return [
            entry
            for entry in self.entries
            if (entry.kind in kinds if kinds else entry.kind != "message")
            and name in (None, entry.name)
            and sender in (None, entry.sender)
            and receiver in (None, entry.receiver)
        ]

    def messages_with_arrays(self, **ends):
        """(entry, its arrays) for each message in the view between these ends."""
        attached = {}
        for entry in self.arrays():
            attached.setdefault(entry.message, []).append(entry)
        for entry in self.entries:
            if entry.kind == "message" and all(getattr(entry, k) == v for k, v in ends.items()):
                yield entry, [self.value(array) for array in attached.get(entry.number, ())]

    def messages(self, **ends):
        """(entry, its fields as they were sent) for each message of semi2k's between these ends."""
        for entry, arrays in self.messages_with_arrays(**ends):
            yield entry, join_semi2k(entry.fields, arrays)


def _digest(header, lines):
    """SHA-256 of a header without it, and of the lines under it."""
    return hashlib.sha256("\n".join([json.dumps(header), *lines]).encode()).hexdigest()


def _line(entry):
    return {name: value for name, value in entry._asdict().items() if value is not None}
