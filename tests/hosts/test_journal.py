"""The journal: nothing in it is changed unseen, a crash costs it one line; and what it tells."""

import contextlib
import datetime
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import resource
import signal
import stat
import threading
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smpc.hosts import PROGRAM, journal
from smpc.hosts.__main__ import main
from smpc.hosts.journal import Chain, Journal, JournalError

# A child that is killed while it writes must come quickly, many times, and share no import.
FORK = multiprocessing.get_context("fork")
PROGRAM_NAME, PLAN = "0123456789abcdef" * 2, "fedcba9876543210" * 4


@pytest.fixture
def path(tmp_path):
    return tmp_path / journal.NAME


def opened(path):
    return contextlib.closing(Journal(path))


def notes(path, *entries):
    """Make a journal of (what, fields)."""
    with opened(path) as journal_:
        for what, fields in entries:
            journal_.note(what, **fields)
    return path


def entries_of(path):
    """What a journal holds, read by someone who does not write it."""
    with path.open("rb") as file:
        return list(Chain(file, path))


# ---- Writing -------------------------------------------------------------------------------------


def test_lines(path):
    """As `sha256sum` would check them."""
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    with opened(path) as written:
        assert list(written.entries()) == []
        written.note("run", position=None, program=PROGRAM_NAME, run=1, attempt=0)
        written.note("error", durable=True, reason="a\nb\u2028c\ud800")
        read = list(written.entries())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first, second = path.read_bytes().splitlines(keepends=True)
    assert [json.loads(line) for line in (first, second)] == read
    assert list(read[0]) == ["time", "what", "position", "program", "run", "attempt", "before"]
    assert read[0]["before"] == hashlib.sha256(b"").hexdigest()
    assert read[1]["before"] == hashlib.sha256(first).hexdigest()
    assert read[1]["reason"] == "a\nb\u2028c\ud800"
    after = datetime.datetime.now(datetime.UTC)
    times = [datetime.datetime.fromisoformat(entry["time"]) for entry in read]
    assert before <= times[0] <= times[1] <= after
    assert all(time.utcoffset() == datetime.timedelta(0) for time in times)


def test_it_goes_on_where_it_was(path):
    for i in range(3):
        notes(path, ("saved", {"step": i}))
    assert [entry["step"] for entry in entries_of(path)] == [0, 1, 2]


def test_durable_is_on_the_disk_before_it_returns(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(path.stat().st_size))
    with opened(path) as written:
        assert synced == [0]  # the folder, which has the file's name
        written.note("run")
        assert synced == [0]
        written.note("revealed", durable=True)
        assert synced == [0, path.stat().st_size]


def test_a_long_text_is_cut_and_a_long_line_refused(path):
    with opened(path) as written:
        written.note("refused", reason="x" * 5000)
        with pytest.raises(ValueError, match="too long for a journal"):
            written.note("session", parties={"a": "x" * (1 << 20)})
        with pytest.raises(ValueError, match="JSON"):
            written.note("error", seconds=float("nan"))
        written.note("ended")
    first, second = entries_of(path)
    assert first["reason"] == "x" * 1000 + "..."
    assert second["what"] == "ended"


def test_many_threads_write_one_chain(path):
    with opened(path) as written:

        def note(name):
            for i in range(100):
                written.note(name, i=i)

        threads = [threading.Thread(target=note, args=(str(n),)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    read = entries_of(path)
    for n in range(4):
        assert [entry["i"] for entry in read if entry["what"] == str(n)] == list(range(100))


def test_it_is_in_use(path):
    """By a second process as by a second `Journal`, until the first has closed it."""
    receiving, sending = FORK.Pipe(duplex=False)

    def child():
        try:
            Journal(path)
        except JournalError as error:
            sending.send(str(error))

    written = Journal(path)
    process = FORK.Process(target=child)
    process.start()
    assert receiving.poll(60)
    with pytest.raises(JournalError) as raised:
        Journal(path)
    assert receiving.recv() == str(raised.value)
    assert str(raised.value) == f"{path} is in use: end the party that writes it"
    process.join()
    written.close()
    with pytest.raises(JournalError, match="is closed"):
        written.note("run")
    notes(path, ("run", {}))


def make_fifo(path):
    os.mkfifo(path)


def make_folder(path):
    path.mkdir()


def link_to_device(path):
    path.symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_fifo, "is no regular file"),
        (make_folder, "Is a directory"),
        (link_to_device, "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_file(path, make, message):
    make(path)
    with pytest.raises(JournalError, match=message):
        Journal(path)


def test_no_folder(tmp_path):
    with pytest.raises(JournalError, match="No such file or directory"):
        Journal(tmp_path / "nowhere" / "journal.jsonl")


# ---- A full disk, an interruption, a crash -------------------------------------------------------


@contextlib.contextmanager
def no_larger_than(size):
    """No file of this process may grow beyond so many bytes: a write is short, the next fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 50])
def test_a_full_disk(path, room):
    """The line is not there, nor a part of it; with room again, the next follows the last."""
    with opened(path) as written:
        written.note("run", run=1)
        whole = path.read_bytes()
        with no_larger_than(len(whole) + room):
            for _ in range(2):
                with pytest.raises(JournalError, match=f"{path}: File too large"):
                    written.note("run", run=2)
        assert path.read_bytes() == whole
        written.note("run", run=3)
        assert [entry["run"] for entry in written.entries()] == [1, 3]
    assert [entry["run"] for entry in entries_of(path)] == [1, 3]


def test_a_full_disk_that_refuses_to_cut_the_file(path, monkeypatch):
    """Then the half line goes before the next is written."""
    with opened(path) as written, monkeypatch.context() as patched:
        written.note("run", run=1)

        def fail(fd, size):
            raise OSError(5, "Input/output error")

        patched.setattr(os, "ftruncate", fail)
        with no_larger_than(path.stat().st_size + 50), pytest.raises(JournalError):
            written.note("run", run=2)
        assert not path.read_bytes().endswith(b"\n")
        with pytest.raises(JournalError, match="Input/output error"):
            written.note("run", run=3)
        patched.undo()
        written.note("run", run=4)
    assert [entry["run"] for entry in entries_of(path)] == [1, 4]


def test_an_interruption_right_after_a_write(path, monkeypatch):
    native = os.write

    def interrupted(fd, line):
        native(fd, line)
        raise KeyboardInterrupt

    with opened(path) as written:
        written.note("run", run=1)
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", interrupted)
            with pytest.raises(KeyboardInterrupt):
                written.note("run", run=2)
        written.note("ended")
    assert [entry["what"] for entry in entries_of(path)] == ["run", "ended"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_killed_in_mid_append(path, monkeypatch, share):
    """What is there of the last line is taken away, if it is not whole, and an entry says so."""
    notes(path, ("run", {"run": 1}), ("run", {"run": 2}))
    whole, native = path.read_bytes(), os.write

    def a_part(fd, line):
        native(fd, line[: int(share * len(line))])
        os.kill(os.getpid(), signal.SIGKILL)

    def child():
        monkeypatch.setattr(os, "write", a_part)
        notes(path, ("run", {"run": 3}))

    process = FORK.Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = len(path.read_bytes()) - len(whole)
    notes(path, ("run", {"run": 4}))
    whats = [(e["what"], e.get("run", e.get("bytes"))) for e in entries_of(path)]
    lost = {0.0: [], 1.0: [("run", 3)]}.get(share, [("cut off", left)])
    assert whats == [("run", 1), ("run", 2), *lost, ("run", 4)]


def test_killed_at_ten_random_moments(path):
    """Nothing that was noted is lost, and the chain goes on."""
    acknowledged = path.with_name("acknowledged")

    def child():
        with opened(path) as written, acknowledged.open("ab", buffering=0) as said:
            while True:
                written.note("session", parties=["x" * 20_000])
                said.write(b".")

    draw = random.SystemRandom()
    moments = [draw.uniform(0, 0.05) for _ in range(10)]
    print(moments)  # seconds from its first entry
    acknowledged.touch()
    for seconds in moments:
        done = acknowledged.stat().st_size
        process = FORK.Process(target=child)
        process.start()
        while acknowledged.stat().st_size == done:
            assert process.is_alive()
            time.sleep(0.001)
        time.sleep(seconds)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it had ended before"
        with opened(path) as written:
            whats = [entry["what"] for entry in written.entries()]
        assert whats.count("session") >= acknowledged.stat().st_size
    assert set(whats) <= {"session", "cut off"}


# ---- Whatever was changed is found ---------------------------------------------------------------


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The bytes of a journal of five lines."""
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    runs = [("run", {"run": i, "program": PROGRAM_NAME, "reason": "}{\n"}) for i in range(5)]
    return notes(path, *runs).read_bytes()


@pytest.fixture(scope="module")
def try_file(tmp_path_factory):
    """try_file(bytes) -> the path of a file that holds them."""
    path = tmp_path_factory.mktemp("tried") / "journal.jsonl"

    def try_file(content):
        path.write_bytes(content)
        return path

    return try_file


@settings(deadline=None)
@given(data=st.data(), change=st.integers(1, 255))
def test_any_byte_before_the_last_line_that_was_changed(content, try_file, data, change):
    last = content[:-1].rindex(b"\n")
    where = data.draw(st.integers(0, last))
    path = try_file(content[:where] + bytes([content[where] ^ change]) + content[where + 1 :])
    with pytest.raises(JournalError, match=f"{path} is broken") as raised:
        notes(path)
    line = content[: where + (where != last)].count(b"\n") + 1
    numbers = [int(word) for word in str(raised.value).replace(":", " ").split() if word.isdigit()]
    assert numbers
    assert all(number in (line - 1, line, line + 1) for number in numbers)
    assert path.stat().st_size == len(content), "a broken journal is left as it is"


def test_the_last_two_lines_joined_to_one(content, try_file):
    """That is no line which a crash has cut off, whatever byte is in the place of the newline."""
    joint = content[:-1].rindex(b"\n")
    for other in set(range(256)) - set(b"\n"):
        path = try_file(content[:joint] + bytes([other]) + content[joint + 1 :])
        with pytest.raises(JournalError, match="is broken: line 4 is no entry"):
            notes(path)


@settings(deadline=None)
@given(data=st.data(), change=st.integers(1, 255))
def test_a_byte_of_the_last_line_that_was_changed(content, try_file, data, change):
    """Nothing vouches for that line yet; those before it stay, or all is refused."""
    whole = content[: content[:-1].rindex(b"\n") + 1]
    where = data.draw(st.integers(len(whole), len(content) - 1))
    path = try_file(content[:where] + bytes([content[where] ^ change]) + content[where + 1 :])
    try:
        with opened(path) as written:
            written.note("ended")
    except JournalError as error:
        assert "line" in str(error)
        return
    assert path.read_bytes().startswith(whole)
    assert len(entries_of(path)) == 6


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_lines_in_another_order(content, try_file, order):
    lines = content.splitlines(keepends=True)
    path = try_file(b"".join([*(lines[i] for i in order), lines[4]]))
    if order == (0, 1, 2, 3):
        assert len(entries_of(path)) == 5
        return
    with pytest.raises(JournalError, match="is broken"):
        notes(path)


@pytest.mark.parametrize("number", range(4))
def test_a_line_that_was_removed_or_doubled(content, try_file, number):
    lines = content.splitlines(keepends=True)
    for changed in (lines[:number] + lines[number + 1 :], lines[:number] + lines[number - 1 :]):
        with pytest.raises(JournalError, match="is broken"):
            notes(try_file(b"".join(changed)))


def test_it_says_from_which_line(content, try_file):
    lines = content.splitlines(keepends=True)
    for changed, message in (
        ([lines[0], lines[2]], "between lines 1 and 2: one of them was changed"),
        (lines[1:], "at line 1: one of them was changed, or some were removed"),
        ([*lines[:3], b"[]\n", lines[4]], "line 4 is no entry"),
        ([*lines, b"x" * 2_000_000], "line 6 is no entry"),
        ([*lines, b"{}\n"], "line 6 is no entry"),
        ([*lines, b"[" * 100_000 + b"\n", lines[0]], "line 6 is no entry"),
    ):
        with pytest.raises(JournalError, match=message):
            notes(try_file(b"".join(changed)))


@settings(deadline=None)
@given(data=st.data())
def test_cut_anywhere(content, try_file, data):
    """What a crash has left of the last line is taken away, and the chain goes on."""
    size = data.draw(st.integers(0, len(content)))
    whole = content[: content[:size].rfind(b"\n") + 1]
    path = try_file(content[:size])
    notes(path, ("ended", {}))
    assert path.read_bytes().startswith(whole)
    added = entries_of(path)[whole.count(b"\n") :]
    cut_off = [("cut off", size - len(whole))] if size > len(whole) else []
    assert [(entry["what"], entry.get("bytes")) for entry in added] == [*cut_off, ("ended", None)]


@settings(deadline=None)
@given(st.binary(max_size=300))
@example(b"\0" * 300)
@example(b"\0" * 200 + b'"}\n')
@example(b'{"time": "2026')
@example(b"[" * 100_000)
def test_whatever_follows_the_last_line(content, try_file, rest):
    """It is taken away as what a crash has left, or refused; the lines before stay."""
    path = try_file(content + rest)
    try:
        with opened(path) as written:
            read = list(written.entries())
    except JournalError as error:
        assert "is broken: line" in str(error)
    else:
        assert path.read_bytes().startswith(content)
        cut_off = [entry["bytes"] for entry in read[5:]]
        assert cut_off == [len(rest)] * bool(rest)


# ---- What it tells its owner ---------------------------------------------------------------------


@pytest.fixture
def told(capsys):
    """told(*arguments) -> the lines that `journal` prints."""

    def told(*arguments):
        main(["journal", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert err == ""
        return out.splitlines()

    return told


def run(number, position, attempt=0):
    about = {"run": number, "attempt": attempt}
    return "run", {"position": position, "program": PROGRAM_NAME, **about}


def revealed(number, position, numbers=1, to="server"):
    _, about = run(number, position)
    return "revealed", {**about, "numbers": numbers, "to": to}


def session(plan, id="5e55"):
    fields = {"plan": plan, "server": "server", "parties": {"alice": "a" * 64, "bob": "b" * 64}}
    return "session", {"id": id, **fields}


def shared(which, start, stop):
    what = {"names": ["images", "labels"], "to": ["alice", "bob"]}
    return "shared", {"which": which, "start": start, "stop": stop, **what}


A_DAY = [
    session(PLAN),
    *(shared("train", 0, 64), shared("train", 64, 128), shared("test", 0, 10)),
    *(run(0, 0), revealed(0, 0), run(1, 1), ("made anew", {"run": 1, "attempt": 0})),
    *(run(1, 1, attempt=1), revealed(1, 1, 1000)),
    ("saved", {"step": 2, "position": 1, "keep": None}),
    ("ended", {"reason": "done", "sent": {"opening": 1000, "running": 24}, "received": 4096}),
    session(PLAN),
    ("loaded", {"step": 2, "position": 1}),
    *(run(0, 1), revealed(0, 1, 1000), run(1, 2), revealed(1, 2, 10, "carol"), revealed(2, 3, 0)),
    shared("train", 0, 64),
    ("refused", {"sender": "bob", "reason": "anew: it is not malformed"}),
    ("refused", {"sender": None, "reason": "no certificate"}),
    ("error", {"reason": "bob is gone"}),
    ("ended", {"reason": "bob is gone", "sent": {"opening": 500}, "received": 4}),
    session(None),
    *(run(0, None), revealed(0, None), run(1, None), ("lunch", {"with": "carol"})),
]


def test_the_summary(path, told):
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    notes(path, *A_DAY)
    content = path.read_bytes()
    with opened(path):  # it may be in use
        head, when, *lines = told(path.parent)
    assert head == f"{path}: {len(A_DAY)} entries, each with the hash of the one before"
    first, last = when.removeprefix("from ").removesuffix(" UTC").split(" to ")
    times = [datetime.datetime.fromisoformat(f"{time}+00:00") for time in (first, last)]
    assert before <= times[0] <= times[1] <= datetime.datetime.now(datetime.UTC)
    program = "program 0123456789ab"
    assert lines == [
        "sessions: 3 (2 plan fedcba987654, 1 without a plan)",
        "revealed: 2,012 numbers",
        f"  2,001 numbers to server, 3 times: plan fedcba987654, {program}",
        f"  10 numbers to carol, 1 times: plan fedcba987654, {program}",
        f"  1 numbers to server, 1 times: without a plan, {program}",
        "shared, masked: 202 items",
        "  128 different train items, 192 in all, with alice, bob",
        "  10 different test items, 10 in all, with alice, bob",
        "runs: 7 attempts, 1 of them broken off to be made anew",
        "positions run more than once: 1",
        "  1 of plan fedcba987654, 2 times each: 1",
        "messages refused: 2 (1 of bob, 1 of a stranger)",
        "errors: 1",
        "sent: 1,524 bytes (opening 1,500, running 24); received: 4,100 bytes",
        "checkpoints: 1 saved, 1 loaded",
        "other entries: 1 lunch",
    ]
    assert path.read_bytes() == content
    assert told(path) == [head, when, *lines], "the file in place of the folder"


def test_each_line_in_words(path, told):
    notes(path, *A_DAY)
    lines = told(path, "--all")
    each = [line[21:] for line in lines[lines.index("") + 1 :]]
    times = {line[:21] for line in lines[lines.index("") + 1 :]}
    assert all(datetime.datetime.fromisoformat(time.strip()) for time in times)
    program = "program 0123456789ab"
    assert len(each) == len(A_DAY)
    assert list(dict.fromkeys(each)) == [
        "session 5e55, plan fedcba987654, asked for by server, with alice aaaaaaaaaaaa, "
        "bob bbbbbbbbbbbb",
        "shared images, labels of train items 0 to 63, masked, with alice, bob",
        "shared images, labels of train items 64 to 127, masked, with alice, bob",
        "shared images, labels of test items 0 to 9, masked, with alice, bob",
        f"ran position 0, {program} (run 0, attempt 0)",
        f"revealed 1 numbers to server, position 0, {program} (run 0, attempt 0)",
        f"ran position 1, {program} (run 1, attempt 0)",
        "broke off run 1, attempt 0, to be made anew",
        f"ran position 1, {program} (run 1, attempt 1)",
        f"revealed 1,000 numbers to server, position 1, {program} (run 1, attempt 0)",
        "saved its shares, step 2",
        "session ended: done; 1,024 bytes sent, 4,096 received",
        "went on from its shares of step 2",
        f"ran position 1, {program} (run 0, attempt 0)",
        f"revealed 1,000 numbers to server, position 1, {program} (run 0, attempt 0)",
        f"ran position 2, {program} (run 1, attempt 0)",
        f"revealed 10 numbers to carol, position 2, {program} (run 1, attempt 0)",
        f"revealed nothing at the end of position 3, {program} (run 2, attempt 0)",
        "refused bob: anew: it is not malformed",
        "refused a stranger: no certificate",
        "error: bob is gone",
        "session ended: bob is gone; 500 bytes sent, 4 received",
        "session 5e55, without a plan, asked for by server, with alice aaaaaaaaaaaa, "
        "bob bbbbbbbbbbbb",
        f"ran {program} (run 0, attempt 0)",
        f"revealed 1 numbers to server, {program} (run 0, attempt 0)",
        f"ran {program} (run 1, attempt 0)",
        'lunch: {"with": "carol"}',
    ]


def test_an_empty_journal(path, told):
    notes(path)
    lines = told(path)
    assert lines[0].startswith(f"{path}: 0 entries")
    assert "revealed: 0 numbers" in lines


def test_positions_beyond_ten_are_not_named(path, told):
    notes(path, session(PLAN), *(run(i, i % 12) for i in range(24)))
    (line,) = (line for line in told(path) if "times each" in line)
    assert line == "  12 of plan fedcba987654, 2 times each: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..."


def test_a_run_made_anew_is_no_second_run_of_its_position(path, told):
    attempts = [run(0, 0, attempt) for attempt in range(3)]
    notes(path, session(PLAN), *attempts, ("made anew", {"run": 0, "attempt": 0}))
    assert "positions run more than once: 0" in told(path)


HOSTILE = "\x1b[2J\x1b]0;mine\x07\r\n\u202e\x9b5m\ud800" + "x" * 5000


def test_what_other_parties_said_is_printed_safely(path, told):
    entries = [
        *(("refused", {"sender": HOSTILE + str(i), "reason": HOSTILE}) for i in range(9)),
        ("error", {"reason": HOSTILE}),
        ("ended", {"reason": HOSTILE, "sent": {HOSTILE: 1}, "received": 1}),
        ("session", session(HOSTILE, HOSTILE)[1] | {"server": HOSTILE, "parties": {HOSTILE: ""}}),
        ("shared", {**shared(HOSTILE, 0, 1)[1], "to": HOSTILE, "names": [HOSTILE]}),
        ("revealed", {**revealed(0, 0)[1], "to": HOSTILE, "program": HOSTILE}),
        (HOSTILE, {"x": HOSTILE}),
        ("run", {HOSTILE: HOSTILE}),
    ]
    notes(path, *entries)
    lines = told(path, "--all")
    assert len(lines) - lines.index("") - 1 == len(entries)
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 6000
    assert all(len(line) < 1000 for line in lines[lines.index("") + 1 :] if "session" not in line)


@pytest.mark.parametrize("what", journal.KINDS)
def test_an_entry_with_other_fields_is_shown_as_it_is(path, told, what):
    notes(path, (what, {"number": 3}), (what, dict.fromkeys(journal.KINDS[what], 1.5)))
    lines = told(path, "--all")
    assert f"other entries: 2 {what}" in lines
    assert lines[-2].endswith(f'{what}: {{"number": 3}}')
    assert lines[-1][21:].startswith(f'{what}: {{"')


def test_a_last_line_that_is_being_written(path, told):
    notes(path, session(PLAN), session(PLAN))
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    head, torn, *_ = told(path)
    assert head.startswith(f"{path}: 1 entries")
    rest = len(content) - 10 - content.index(b"\n") - 1
    assert torn == f"its last line, {rest} bytes, is not whole: being written, or cut off"
    assert path.read_bytes() == content[:-10]
    with opened(path):
        pass
    assert f"lines cut off by a crash: 1, {rest} bytes" in told(path)
    assert told(path, "--all")[-1].endswith(
        f"a crash had cut off the last line, {rest} bytes of it"
    )


def change_a_byte(path):
    path.write_bytes(path.read_bytes().replace(b"bob is gone", b"bob is here", 1))


def remove(path):
    path.unlink()


def in_the_place_of(make):
    def damage(path):
        path.unlink()
        make(path)

    damage.__name__ = make.__name__
    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_a_byte, "is broken between lines 23 and 24: one of them was changed"),
        (remove, "No such file or directory"),
        (in_the_place_of(make_fifo), "not a file, but a folder"),
        (in_the_place_of(link_to_device), "not a file, but a folder"),
        (in_the_place_of(make_folder), "not a file, but a folder"),
    ],
)
def test_what_cannot_be_told(path, fails, told, damage, message):
    notes(path, *A_DAY)
    damage(path)
    assert message in fails(PROGRAM, lambda: told(path.parent))


def test_a_home_that_is_not_there(fails, told):
    line = fails(PROGRAM, lambda: told(pathlib.Path("nowhere")))
    assert line.endswith("nowhere: No such file or directory\n")
