"""`make hosts`: all parties on this machine, a process each, over mutual TLS on the loopback.

    python -m smpc.hosts loopback [--folder hosts] [--options="--epochs 2"]

It does what the administrators of the hosts and of the server do, command by command (see
docs/deployment.md), and prints each. Keys, parts, plan and journals are left in the folder.
"""

import contextlib
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys

from smpc.arguments import path
from smpc.files import FileError, prepare_folder, write_whole
from smpc.hosts.grammar import TRAINING
from smpc.hosts.parts import SETS

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
IMAGES = REPOSITORY / "data" / "MNIST" / "raw" / SETS["test"][0]  # unpacked by `split`
PROVIDER, SERVER = "crypto-provider", "server"
TO_END = 20  # seconds that a party may take
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class LoopbackError(FileError):
    """A command has failed; the message is its last line."""


class Loopback:
    """The hosts of a training, or of a prediction, in folders below one.

    Args:
        folder: a pathlib.Path; `workers`: their names.
        n_train, n_test: items that all have together, as equal as can be.
        say: called with each command line before it is run.
        clients: names of those who have n_test images to be classified.
    Attributes:
        parties: the parties file; `plan`: the plan's.
        running: name -> the `subprocess.Popen` of a party that serves.
    """

    def __init__(
        self,
        folder,
        workers=("alice", "bob"),
        n_train=640,
        n_test=640,
        say=lambda _: None,
        clients=(),
    ):
        self.folder, self.workers, self.clients, self._say = folder, workers, clients, say
        self.parties, self.plan, self.running = folder / "parties.toml", folder / "plan.json", {}
        self._items = n_train, n_test

    def prepare(self):
        """Make keys, the parties file, and each owner's part of the data."""
        self.folder.mkdir(parents=True, exist_ok=True)
        n_train, n_test = (_shares(n, len(self.workers)) for n in self._items)
        blocks = []
        for number, name in enumerate((*self.workers, PROVIDER)):
            address = ["--address", f"127.0.0.1:{free_port()}"]
            role = ["--role", "crypto provider"]
            if name in self.workers:
                items = ["--train-items", n_train[number], "--test-items", n_test[number]]
                role = ["--role", "worker", *items]
            blocks.append(self._certificate(name, *role, *address))
        for name in self.clients:
            address = ["--address", f"127.0.0.1:{free_port()}"]
            role = ["--role", "client", "--test-items", self._items[1]]
            blocks.append(self._certificate(name, *role, *address))
        blocks.append(self._certificate(SERVER, "--role", "server"))
        write_whole(self.parties, "\n".join(blocks).encode())
        counts = ["--n-train-items", self._items[0], "--n-test-items", self._items[1]]
        self.hosts("split", "--between", *self.workers, *counts, "--out", self.folder / "parts")
        for name in self.clients:
            part = prepare_folder(self.folder / "parts" / name)
            shutil.copy(IMAGES, part)

    def _certificate(self, name, *options):
        return self.hosts("certificate", name, "--home", self.folder / name, *options)

    def hosts(self, *arguments):
        """What `python -m smpc.hosts` prints with these arguments.

        Raises:
            LoopbackError: it fails.
        """
        return self._done([sys.executable, "-m", "smpc.hosts", *map(str, arguments)])

    def write_plan(self, *options):
        """Have the script make the plan."""
        self.script("--write-plan", self.plan, *options)

    def script(self, *options, script=TRAINING):
        """What a script prints with these options on these hosts.

        Raises:
            LoopbackError: it fails.
        """
        return self._done(self.script_command(*options, script=script))

    def script_command(self, *options, script=TRAINING):
        """The command line of a script on these hosts."""
        return [sys.executable, *map(str, (script, "--parties", self.parties, *options))]

    def _done(self, command):
        self._say(shlex.join(["python", *command[1:]]))
        result = subprocess.run(
            command, capture_output=True, text=True, cwd=REPOSITORY, env=os.environ | ONE_THREAD
        )
        if result.returncode:
            raise LoopbackError((result.stderr.strip().splitlines() or ["no reason given"])[-1])
        return result.stdout

    def start(self, name, *options, wait=True):
        """Start a party, and wait until it serves.

        Raises:
            LoopbackError: it does not.
        """
        command = [sys.executable, "-m", "smpc.hosts", "serve", name, "--parties", self.parties]
        part = self.folder / "parts" / name
        command += ["--data", part] if part.exists() else []
        command += options or ["--plan", self.plan]
        command = [*map(str, command)]
        self._say(shlex.join(["python", *command[1:]]))
        process = self.running[name] = subprocess.Popen(
            command, cwd=REPOSITORY, env=os.environ | ONE_THREAD, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if wait and not process.stdout.readline().startswith("serving"):
            raise LoopbackError(process.communicate()[1].strip())

    def stop(self, name, number=signal.SIGTERM):
        """End a party; what it has printed to stdout and stderr since it served."""
        process = self.running.pop(name)
        process.send_signal(number)
        try:
            return process.communicate(timeout=TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            raise

    @contextlib.contextmanager
    def serving(self, *options, clients=()):
        """All parties that serve, of the clients these, for a `with` block."""
        try:
            for name in (*self.workers, PROVIDER, *clients):
                self.start(name, *options)
            yield self
        finally:
            for name in list(self.running):
                self.stop(name)


def _shares(n, among):
    """How many of n each of so many gets."""
    return [n // among + (k < n % among) for k in range(among)]


def free_port():
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# ---- The command ---------------------------------------------------------------------------------


def arguments(parser):
    """Add the options of `loopback`."""
    parser.add_argument("--folder", type=path, default="hosts", help="for all that is made")
    parser.add_argument("--options", type=shlex.split, default=[], help="of train_encrypted.py")


def main(args):
    """Train on hosts of this machine, and end in order."""
    folder = pathlib.Path(args.folder)
    hosts = Loopback(folder, say=lambda line: print(f"$ {line}", flush=True))
    if hosts.parties.exists():
        raise LoopbackError(f"{folder} is there already: delete it, or name another --folder")
    hosts.prepare()
    hosts.write_plan(*args.options)
    print(hosts.hosts("show", hosts.plan))
    with hosts.serving():
        command = hosts.script_command("--plan", hosts.plan)
        print(f"$ {shlex.join(['python', *command[1:]])}", flush=True)
        status = subprocess.run(command, cwd=REPOSITORY, env=os.environ | ONE_THREAD).returncode
    print(hosts.hosts("journal", folder / hosts.workers[0]))
    raise SystemExit(status)
