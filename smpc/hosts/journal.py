"""A party's journal: what it did and gave away, line by line; and `journal`, which tells its owner.

    python -m smpc.hosts journal alice          # a summary of alice/journal.jsonl; --all: each line

A line is a JSON object: `time` (ISO 8601, UTC), `what` (the kind of entry), fields, and `before`,
the SHA-256 of the line before with its newline (of nothing, for the first line). So no line can be
changed, removed or moved without a trace but the last ones: whoever can write the file can cut it
off there, or change the very last line, for which nothing vouches yet.

The kinds of entry, and the fields of each, are `KINDS` below.
"""

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import pathlib
import stat
import threading
from collections import Counter

from smpc.arguments import path
from smpc.files import FileError, lock, named, regular
from smpc.process import to_stdout

NAME = "journal.jsonl"
FIRST = hashlib.sha256().hexdigest()  # what the first line has as `before`
MOST = 1 << 40  # bytes
MOST_LINE = 1 << 20  # bytes; a longer line is none of ours
MOST_TEXT = 1000  # characters of a field: what came from another party may be as long as it likes


class JournalError(FileError):
    """A journal is in use, broken, or cannot be written; the message is one line for the user."""


class Journal:
    """The journal of a running party, which alone may write it.

    A last line that a crash has cut off is taken away, and an entry says so.

    Args:
        path: of the file, which is made if need be, with mode 0600.
    Raises:
        JournalError: it is in use, broken, or cannot be opened or written.
    """

    def __init__(self, path):
        self.path, self._writing = pathlib.Path(path), threading.Lock()
        with named(self.path, JournalError):
            try:
                self._file = lock(self.path)
            except BlockingIOError:
                raise JournalError(f"{self.path} is in use: end the party that writes it") from None
        try:
            with named(self.path, JournalError):
                self._open()
        except BaseException:
            self.close()
            raise

    def _open(self):
        number = self._file.fileno()
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise JournalError(f"{self.path} is no regular file")
        fcntl.fcntl(number, fcntl.F_SETFL, fcntl.fcntl(number, fcntl.F_GETFL) | os.O_APPEND)
        with self._reader() as file:
            chain = Chain(file, self.path)
            for _ in chain:
                pass
        self._end, self._before = chain.end, chain.before
        if chain.torn:
            self.note("cut off", durable=True, bytes=chain.torn)
        elif not self._end:  # a new file, whose name, too, is to be on the disk
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def note(self, what, *, durable=False, **fields):
        """Append an entry, in one piece; of a text of more than `MOST_TEXT` characters, the
        beginning.

        Args:
            what: its kind; `fields`: what JSON can hold.
            durable: return only when the entry is on the disk.
        Raises:
            JournalError: it cannot be written; the file ends with the last whole line, as before.
            ValueError: it has more than `MOST_LINE` bytes.
        """
        fields = {
            name: value[:MOST_TEXT] + "..."
            if isinstance(value, str) and len(value) > MOST_TEXT
            else value
            for name, value in fields.items()
        }
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with self._writing:
            entry = {"time": time, "what": what, **fields, "before": self._before}
            line = json.dumps(entry, allow_nan=False).encode() + b"\n"
            if len(line) > MOST_LINE:
                raise ValueError(f"a line of {len(line)} bytes is too long for a journal")
            with named(self.path, JournalError):
                self._append(line, durable)
            self._end, self._before = self._end + len(line), _digest(line)

    def _append(self, line, durable):
        if self._file.closed:
            raise JournalError(f"{self.path} is closed")
        self._cut()
        try:
            while line:  # in one piece, but for a disk that is about to be full
                line = line[os.write(self._file.fileno(), line) :]
            if durable:
                os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # tried again before the next line
                self._cut()
            raise

    def _cut(self):
        """Take away what a write that failed or was interrupted has left."""
        if os.fstat(self._file.fileno()).st_size > self._end:
            os.ftruncate(self._file.fileno(), self._end)

    def entries(self):
        """An iterator over the entries so far: dicts, oldest first."""
        with self._writing, named(self.path, JournalError), self._reader() as file:
            return iter(list(Chain(file, self.path)))

    def close(self):
        """Let another process have it."""
        self._file.close()

    def _reader(self):
        file = os.fdopen(self._file.fileno(), "rb", closefd=False)
        file.seek(0)
        return file


class Chain:
    """The entries of a journal, each verified before it is given: an iterator over dicts.

    Args:
        file: to read, binary; `path`: its name, for messages.
    Attributes:
        number, end, before: of what has been read: how many lines, how many bytes, and the hash of
            the last line. `torn`: bytes of a last line that was cut off; 0 until the end.
    Raises:
        JournalError: a line is no entry, or not the one that belongs there.
    """

    def __init__(self, file, path):
        self._file, self._path = file, path
        self.number, self.end, self.before, self.torn = 0, 0, FIRST, 0

    def __iter__(self):
        return self

    def __next__(self):
        line = self._file.readline(MOST_LINE)
        if not line:
            raise StopIteration
        entry, number = _parsed(line), self.number + 1
        if entry is None:
            if _is_torn(line) and not self._file.read(1):
                self.torn = len(line)
                raise StopIteration
            raise JournalError(f"{self._path} is broken: line {number} is no entry")
        if entry["before"] != self.before:
            place = f"between lines {self.number} and {number}" if self.number else "at line 1"
            raise JournalError(
                f"{self._path} is broken {place}: one of them was changed, or some were removed"
            )
        self.number, self.end, self.before = number, self.end + len(line), _digest(line)
        return entry


def _digest(line):
    return hashlib.sha256(line).hexdigest()


def _parsed(line):
    """The entry of a line, or None if it has none."""
    try:
        entry = json.loads(line.decode("ascii"))
        whole = line.endswith(b"\n") and all(
            isinstance(entry[name], str) for name in ("time", "what", "before")
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return entry if whole else None


def _is_torn(line):
    """Whether a last line may be what a crash has left: the beginning of an entry or, where the
    disk had not got to it, anything but a whole value with something behind it."""
    text = line.decode("latin-1")  # which has a letter for every byte
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return True
    return end == len(text)


# ---- In words ------------------------------------------------------------------------------------

_POSITION = {"position": int | None}
_RUN = {"run": int, "attempt": int}
# Of each kind of entry, the fields that are told in words. An entry of another kind, or with other
# fields, is shown as it is.
KINDS = {
    # fingerprints of the parties' certificates, by name
    "session": {"id": str, "plan": str | None, "server": str, "parties": dict},
    "run": {**_POSITION, "program": str, **_RUN},
    "revealed": {**_POSITION, "program": str, "numbers": int, "to": str, **_RUN},
    "made anew": _RUN,
    "saved": {"step": int, **_POSITION, "keep": int | None},
    "loaded": {"step": int, **_POSITION},
    # an owner's items, masked: those of the set `which` from `start` to before `stop`
    "shared": {"which": str, "start": int, "stop": int, "names": list, "to": list | str},
    "refused": {"sender": str | None, "reason": str},
    "error": {"reason": str},
    "ended": {"reason": str, "sent": dict, "received": int},  # bytes; those sent, by kind
    "cut off": {"bytes": int},
}


def printable(value, most=200):
    """A value as ASCII that moves no cursor and fills no screen, whoever wrote it."""
    text = str(value)
    return ascii(text[:most])[1:-1] + "..." * (len(text) > most)


def short(hash):
    """The beginning of a hash, such as tells a few apart."""
    return printable(hash, 12).removesuffix("...")


def listed(names):
    """A name, or several."""
    return printable(names if isinstance(names, str) else ", ".join(map(str, names)))


def of_plan(plan):
    """Under which plan."""
    return "without a plan" if plan is None else f"plan {short(plan)}"


def kind_of(entry):
    """The kind of an entry, or None if it is of no kind that is known here."""
    fields = KINDS.get(entry["what"], {})
    known = all(name in entry and isinstance(entry[name], fields[name]) for name in fields)
    return entry["what"] if fields and known else None


def in_words(entry):
    """What an entry says, without its time."""
    e = entry
    match kind_of(entry):
        case "session":
            parties = ", ".join(f"{name} {short(hash)}" for name, hash in e["parties"].items())
            who = f"asked for by {printable(e['server'])}, with {printable(parties, 1000)}"
            return f"session {printable(e['id'])}, {of_plan(e['plan'])}, {who}"
        case "run":
            return f"ran {_where(e)}"
        case "revealed" if not e["numbers"]:
            return f"revealed nothing at the end of {_where(e)}"
        case "revealed":
            return f"revealed {e['numbers']:,} numbers to {printable(e['to'])}, {_where(e)}"
        case "made anew":
            return f"broke off run {e['run']}, attempt {e['attempt']}, to be made anew"
        case "saved":
            return f"saved its shares, step {e['step']}"
        case "loaded":
            return f"went on from its shares of step {e['step']}"
        case "shared":
            items = f"{printable(e['which'])} items {e['start']} to {e['stop'] - 1}"
            return f"shared {listed(e['names'])} of {items}, masked, with {listed(e['to'])}"
        case "refused":
            return f"refused {printable(e['sender'] or 'a stranger')}: {printable(e['reason'])}"
        case "error":
            return f"error: {printable(e['reason'])}"
        case "ended":
            sent = f"{sum(e['sent'].values()):,} bytes sent, {e['received']:,} received"
            return f"session ended: {printable(e['reason'])}; {sent}"
        case "cut off":
            return f"a crash had cut off the last line, {e['bytes']} bytes of it"
    rest = {name: value for name, value in e.items() if name not in ("time", "what", "before")}
    return f"{printable(e['what'])}: {printable(json.dumps(rest))}"


def _where(entry):
    position = "" if entry["position"] is None else f"position {entry['position']}, "
    run = f"run {entry['run']}, attempt {entry['attempt']}"
    return f"{position}program {short(entry['program'])} ({run})"


class Summary:
    """What all entries of a journal come to."""

    def __init__(self, entries):
        self.times, self.plans = [], Counter()
        self.kinds, self.others = Counter(), Counter()
        self.plan, self.session = None, 0
        self.revealed, self.reveals = Counter(), Counter()  # by (plan, program, to)
        self.runs = {}  # (plan, position) -> the runs of it
        self.items, self.shares, self.receivers = {}, Counter(), {}  # by set
        self.refused, self.sent, self.received, self.lost = Counter(), Counter(), 0, 0
        for entry in entries:
            self._add(entry)

    def _add(self, entry):
        kind = kind_of(entry)
        if kind is None:
            self.others[printable(entry["what"])] += 1
        self.kinds[kind] += 1
        self.times.append(entry["time"])
        match kind:
            case "session":
                self.plan, self.session = entry["plan"], self.session + 1
                self.plans[self.plan] += 1
            case "run":
                if entry["position"] is not None:
                    runs = self.runs.setdefault((self.plan, entry["position"]), set())
                    runs.add((self.session, entry["run"]))
            case "revealed" if entry["numbers"]:
                key = self.plan, entry["program"], entry["to"]
                self.revealed[key] += entry["numbers"]
                self.reveals[key] += 1
            case "shared":
                which, items = entry["which"], range(entry["start"], entry["stop"])
                self.items.setdefault(which, set()).update(items)
                self.shares[which] += len(items)
                to = self.receivers.setdefault(which, {})  # in the order in which they came
                to[listed(entry["to"])] = None
            case "refused":
                self.refused[entry["sender"] or "a stranger"] += 1
            case "ended":
                self.sent.update(entry["sent"])
                self.received += entry["received"]
            case "cut off":
                self.lost += entry["bytes"]

    def lines(self):
        """Lines for the owner: first what was given away, then the rest."""
        return [
            *self._sessions(),
            *self._given_away(),
            *self._run_again(),
            *self._mishaps(),
            *self._traffic(),
        ]

    def _sessions(self):
        if self.times:
            first, last = (_day_and_time(time) for time in (self.times[0], self.times[-1]))
            yield f"from {first} to {last} UTC"
        plans = ", ".join(f"{n:,} {of_plan(plan)}" for plan, n in self.plans.items())
        yield f"sessions: {self.session:,}" + f" ({plans})" * bool(plans)

    def _given_away(self):
        yield f"revealed: {self.revealed.total():,} numbers"
        for (plan, program, to), n in self.revealed.most_common():
            times = f"{self.reveals[plan, program, to]:,} times"
            of = f"{of_plan(plan)}, program {short(program)}"
            yield f"  {n:,} numbers to {printable(to)}, {times}: {of}"
        yield f"shared, masked: {self.shares.total():,} items"
        for which, n in self.shares.items():
            different = f"{len(self.items[which]):,} different {printable(which)} items"
            yield f"  {different}, {n:,} in all, with {'; '.join(self.receivers[which])}"

    def _run_again(self):
        runs, anew = self.kinds["run"], self.kinds["made anew"]
        yield f"runs: {runs:,} attempts, {anew:,} of them broken off to be made anew"
        again, most = {}, 10  # positions that are named
        for (plan, position), of_position in self.runs.items():
            if len(of_position) > 1:
                again.setdefault((plan, len(of_position)), []).append(position)
        yield f"positions run more than once: {sum(map(len, again.values())):,}"
        for (plan, times), positions in again.items():
            named = ", ".join(map(str, positions[:most])) + ", ..." * (len(positions) > most)
            yield f"  {len(positions):,} of {of_plan(plan)}, {times} times each: {named}"

    def _mishaps(self):
        most = 5  # senders; strangers can have any name
        senders = [f"{n:,} of {printable(name)}" for name, n in self.refused.most_common(most)]
        senders += ["..."] * (len(self.refused) > most)
        named = f" ({', '.join(senders)})" * bool(senders)
        yield f"messages refused: {self.refused.total():,}{named}"
        yield f"errors: {self.kinds['error']:,}"
        if self.lost:
            yield f"lines cut off by a crash: {self.kinds['cut off']:,}, {self.lost:,} bytes"

    def _traffic(self):
        kinds = ", ".join(f"{printable(kind)} {n:,}" for kind, n in self.sent.items())
        sent = f"{self.sent.total():,} bytes" + f" ({kinds})" * bool(kinds)
        yield f"sent: {sent}; received: {self.received:,} bytes"
        yield f"checkpoints: {self.kinds['saved']:,} saved, {self.kinds['loaded']:,} loaded"
        if self.others:
            others = ", ".join(f"{n:,} {what}" for what, n in self.others.items())
            yield f"other entries: {others}"


def _day_and_time(time):
    return printable(time.replace("T", " ").removesuffix("+00:00"), 19)


# ---- python -m smpc.hosts journal ----------------------------------------------------------------


def arguments(parser):
    """Add the options of `journal`."""
    parser.add_argument("home", type=path, metavar="HOME", help="a party's home folder, or journal")
    parser.add_argument("--all", action="store_true", help="each entry, too, in words")


def main(args):
    """Tell an owner what its party has given away so far; the party may be running.

    Raises:
        JournalError: there is no journal, it is broken, or cannot be read.
    """
    path = pathlib.Path(args.home)
    path = path / NAME if path.is_dir() else path
    with named(path, JournalError), regular(path, MOST) as file:
        chain = Chain(file, path)
        entries = list(chain)
    with to_stdout():
        print(f"{path}: {chain.number:,} entries, each with the hash of the one before")
        if chain.torn:
            print(f"its last line, {chain.torn} bytes, is not whole: being written, or cut off")
        print("\n".join(Summary(entries).lines()))
        if args.all:
            print()
            for entry in entries:
                print(f"{_day_and_time(entry['time'])}  {in_words(entry)}")
