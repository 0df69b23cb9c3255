"""This process: the signals that end it, its standard streams, and how it ends when one fails."""

import contextlib
import functools
import os
import pathlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from smpc import compat
from smpc.files import FileError

Handler = Callable[[int, FrameType | None], Any] | int | None  # as `signal.signal` takes it

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_dropped = {}  # streams that could not be written to -> why


def prepare():
    """Call it before what takes long to import: a signal then ends the program with one line, and
    no file is opened in the place of a standard stream that is closed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the least number that is free
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w")
    if sys.stdout is None:
        fail("stdout is closed", pathlib.Path(sys.argv[0]).name)
    on_signals(_end_importing)


def prepare_syft(program: str = "train_encrypted.py"):
    """Have syft 0.2.9 be imported on today's torch; or end the program, this being another."""
    try:
        compat.prepare()
    except compat.UnsupportedVersion as unsupported:
        fail(unsupported, program)


def _end_importing(number, _):
    """A signal handler that raises nothing: C++ that is being imported would not stand it."""
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted before anything was done\n")
    os._exit(128 + number)


@functools.cache  # once a process
def _keep_out_of_children():
    os.register_at_fork(after_in_child=_leave_signals_to_the_parent)


def _leave_signals_to_the_parent():
    """In a process that syft has forked: a terminal's signals reach it, too, but its parent ends
    it, by SIGTERM, which a handler of the program's would not let it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)


def on_signals(handler: Handler) -> dict[int, Handler]:
    """Have `handler` called on Ctrl-C, SIGTERM and SIGHUP; not on a SIGHUP that nohup ignores.

    Returns:
        the handlers that there were.
    """
    _keep_out_of_children()
    heeded = [n for n in SIGNALS if (n, signal.getsignal(n)) != (signal.SIGHUP, signal.SIG_IGN)]
    return {number: signal.signal(number, handler) for number in heeded}


def _end(number, _):
    on_signals(signal.SIG_IGN)
    tell("interrupted: no results yet")
    raise SystemExit(128 + number)


def in_order(program: str) -> Callable[[Callable], Callable]:
    """Makes a program's `main` end in order, with at most one line on stderr: with its status after
    a `FileError`, with 128 and its number after a signal that nothing else handles."""

    def decorate(main):
        @functools.wraps(main)
        def run(*args):
            before = on_signals(_end)
            for stream in (sys.stdout, sys.stderr):  # whatever a terminal cannot show
                stream.reconfigure(errors="backslashreplace")
            try:
                return main(*args)
            except FileError as error:
                fail(error, program, error.status)
            finally:
                for number, handler in before.items():
                    over = handler is _end_importing  # then this process ends here
                    signal.signal(number, signal.SIG_IGN if over else handler)

        return run

    return decorate


@contextlib.contextmanager
def to_stdout() -> Iterator[None]:
    """For what prints; at the end all of it has been written.

    Raises:
        FileError: it cannot be written: the disk is full, or nobody reads on; or it could not
            before, since when what is printed goes nowhere.
    """
    if sys.stdout in _dropped:
        raise FileError(f"stdout: {_dropped[sys.stdout]}")
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        _drop(sys.stdout)
        _dropped[sys.stdout] = error.strerror
        raise FileError(f"stdout: {error.strerror}") from None


def tell(line: str):
    """Print a line to stderr, if it can be: the exit status tells as well."""
    try:
        print(f"{line}\n", end="", file=sys.stderr, flush=True)  # whole, whoever else writes
    except OSError:
        _drop(sys.stderr)


def fail(message: object, program: str = "train_encrypted.py", status: int = 2) -> NoReturn:
    """End the program with one line on stderr, and this exit status."""
    tell(f"{program}: error: " + "\\n".join(str(message).splitlines()))
    raise SystemExit(status)


def _drop(stream):
    """Let what a stream has in its buffer go nowhere, so that flushing it at the end succeeds."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
