"""This repository's programs, started without the seconds that importing torch and syft takes.

A server has imported what they import of others', and for each program forks a process of its own,
with the arguments, environment, folder and standard streams that it is to have, and the `Limit`, if
there is one. That one imports what is this project's, runs the program as `__main__`, and ends as
Python does. It differs from one
that is started anew in this: no signal comes while torch is imported, which computes in one thread.

`forked()` has `subprocess` start programs so; `anew()` does not. From a shell, with `SERVER` in its
environment, this file stands for Python, and passes signals on to the program:

    python -S tests/programs.py -m smpc.hosts show plan.json
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pathlib
import resource
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from typing import NamedTuple

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
AUDITED = "train_and_audit.py"  # what `tests.audit.broken` has run in a copy of the repository
PROGRAMS = (
    *("train_encrypted.py", "predict_encrypted.py", "smpc.hosts", "smpc.audit"),
    *("examples.hospitals", "benchmarks.training", "tests.audit.broken", AUDITED),
)
SERVER = "SMPC_TESTS_PROGRAMS"  # in the environment: the path of a server's socket
# Of others', besides torch and syft. Not gRPC: what it has begun, a fork ends.
PRELOADED = "torchvision", "matplotlib.pyplot", "scipy.stats", "psutil", "tqdm", "msgpack"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
NUMBER = struct.Struct("i")
MOST = 1 << 20  # bytes of a request
CLONE_NEWNET = 0x40000000
NETWORK = pathlib.Path("/proc/self/ns/net")
THREADS = pathlib.Path("/proc/self/task")


class Limit(NamedTuple):
    """A `preexec_fn` that lets no file grow beyond so many bytes, as on a full disk."""

    size: int

    def __call__(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))
        sys.dont_write_bytecode = True  # what is cut off is taken for whole


# ---- The server ----------------------------------------------------------------------------------


def serve(listener):
    """Fork a process for each request until stdin is at its end.

    Returns:
        in each such process, once its streams are those of the request: the request; in the server,
        at the end, None.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the programs
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # they heed it, whatever we do
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        content, streams, _, _ = socket.recv_fds(connection, MOST, 4)
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if not (child := os.fork()):
                listener.detach(), connection.detach()
                signal.signal(signal.SIGINT, signal.default_int_handler)
                return taken_on(json.loads(content), *streams)
            os.closerange(0, connection.fileno())
            os.closerange(connection.fileno() + 1, max(streams) + 1)
            connection.sendall(NUMBER.pack(child))
            _, status = os.waitpid(child, 0)
            connection.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
            os._exit(0)
        connection.close()
        for stream in streams:
            os.close(stream)
    return None


def taken_on(request, stdin, stdout, stderr, network):
    """Have this process's surroundings be those of a request, which is returned."""
    elsewhere = os.fstat(network).st_ino != NETWORK.stat().st_ino
    if elsewhere and ctypes.CDLL(None).setns(network, CLONE_NEWNET):
        raise OSError("no way into this network namespace")
    if request["session"]:
        os.setsid()
    for number, stream in enumerate((stdin, stdout, stderr)):
        os.dup2(stream, number)
    os.closerange(3, max(stdin, stdout, stderr, network) + 1)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if request["limit"]:
        Limit(request["limit"])()
    return request


def run(program, *arguments):
    """Run a program as `__main__`: a script, or what follows -m."""
    import numpy

    numpy.random.seed()  # as Python does for its own generator
    for name in [name for name in sys.modules if name.split(".")[0] == "smpc"]:
        del sys.modules[name]
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    with contextlib.suppress(ImportError):
        importlib.import_module("sitecustomize")
    if program == "-m":
        module, *arguments = arguments
        sys.argv, sys.path[0] = [module, *arguments], str(pathlib.Path.cwd())
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [program, *arguments], str(pathlib.Path(program).resolve().parent)
        runpy.run_path(program, run_name="__main__")


class Ending:
    """How a program ends: what Python would do after its last exit handler takes seconds, and so is
    left out.

    Attributes:
        status: with which it ends.
    """

    def __init__(self):
        self.status = 1  # of an error that nobody handles
        atexit.register(self._leave)  # the first to be registered is the last to be called

    @contextlib.contextmanager
    def noted(self):
        """A context in which the program runs."""
        try:
            yield
            self.status = 0
        except SystemExit as ended:
            if ended.code is None or isinstance(ended.code, int):
                self.status = int(ended.code or 0)
            raise

    def _leave(self):
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                self.status = 120  # as Python has it
        os._exit(self.status & 0xFF)


def main():
    """Be the server, and then, in what it has forked, the program."""
    ending = Ending()
    from smpc import compat

    compat.prepare()
    for module in PRELOADED:
        importlib.import_module(module)
    assert threading.active_count() == 1 == len([*THREADS.iterdir()])
    gc.freeze()  # or the programs copy all of it
    if request := serve(socket.socket(fileno=int(sys.argv[1]))):
        with ending.noted():
            run(*request["command"])
    else:
        ending.status = 0


# ---- Who asks it ---------------------------------------------------------------------------------


def server():
    """The path of the socket of a server: of this process, and of all that it starts."""
    if SERVER not in os.environ:
        folder = tempfile.TemporaryDirectory()
        os.environ[SERVER] = f"{folder.name}/programs"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.environ[SERVER])
            listener.listen(64)
            process = NATIVE(
                [sys.executable, "-m", "tests.programs", str(listener.fileno())],
                cwd=REPOSITORY, env=os.environ | ONE_THREAD,
                pass_fds=[listener.fileno()], stdin=subprocess.PIPE,
            )  # fmt: skip
        atexit.register(end, process, folder)
    return os.environ[SERVER]


def end(process, folder):
    """End a server, and take its folder away."""
    process.stdin.close()
    process.wait()
    folder.cleanup()
    del os.environ[SERVER]


def ask(command, folder, environment, streams, session=False, limit=None):
    """(the connection, on which its exit status will come; the process's id)."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(server())
    about = {"command": command, "folder": folder, "environment": environment}
    about |= {"session": session, "limit": limit}
    with NETWORK.open() as network:
        socket.send_fds(connection, [json.dumps(about).encode()], [*streams, network.fileno()])
    return connection, *NUMBER.unpack(connection.recv(NUMBER.size))


NATIVE = subprocess.Popen


class Popen(subprocess.Popen):
    """As it is, but that programs of this repository are forked by the server."""

    _connection = None

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *more):
        command = [args] if isinstance(args, str) else [*map(str, args)]
        is_one = command[0] == sys.executable and {*command[1:3]} & {*PROGRAMS}
        limit = preexec_fn.size if isinstance(preexec_fn, Limit) else None
        if (preexec_fn and not limit) or not is_one:
            about = executable, preexec_fn, close_fds, pass_fds, cwd, env
            return super()._execute_child(args, *about, *more)
        _, _, _, stdin, _, _, stdout, _, stderr, *_, session, _ = more
        streams = [number if fd == -1 else fd for number, fd in enumerate((stdin, stdout, stderr))]
        environment = dict(os.environ if env is None else env)
        folder = str(cwd or pathlib.Path.cwd())
        about = environment, streams, session, limit
        self._connection, self.pid = ask(command[1:], folder, *about)
        self._child_created = True
        self._close_pipe_fds(*more[3:9])
        return None

    def _internal_poll(self, *about, **options):
        return self._ended(0) if self._connection else super()._internal_poll(*about, **options)

    def _wait(self, timeout):
        if self._connection is None:
            return super()._wait(timeout)
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _ended(self, timeout):
        """The exit status, if it comes before that; else None."""
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            (self.returncode,) = NUMBER.unpack(self._connection.recv(NUMBER.size))
            self._connection.close()
        return self.returncode


@contextlib.contextmanager
def started_by(popen):
    before, subprocess.Popen = subprocess.Popen, popen
    try:
        yield
    finally:
        subprocess.Popen = before


def forked():
    """A context in which `subprocess` has the server fork this repository's programs."""
    return started_by(Popen)


def anew():
    """A context in which it starts them anew."""
    return started_by(NATIVE)


def stand_for(*command):
    """From a shell: be the program, but for its process."""
    connection, child = ask(command, str(pathlib.Path.cwd()), dict(os.environ), (0, 1, 2))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(child, number))
    (status,) = NUMBER.unpack(connection.recv(NUMBER.size))
    raise SystemExit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main() if __spec__ else stand_for(*sys.argv[1:])
