"""`make hosts`: all parties on this machine, a process each, over mutual TLS on the loopback.

    python -m smpc.hosts loopback [--folder hosts] [--example hospitals] [--options="--epochs 2"]

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
from smpc.hosts import tables
from smpc.hosts.grammar import HOSPITALS, TRAINING
from smpc.hosts.parts import SETS

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
IMAGES = REPOSITORY / "data" / "MNIST" / "raw" / SETS["test"][0]  # unpacked by `split`
PROVIDER, SERVER = "crypto-provider", "server"
TO_END = 20  # seconds that a party may take
TABLE = REPOSITORY / "examples" / "breast_cancer" / "breast_cancer.csv"
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
        table: of examples/hospitals.py, a pathlib.Path, dealt among the workers instead of MNIST.
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
        table=None,
    ):
        self.folder, self.workers, self.clients, self._say = folder, workers, clients, say
        self._script = ("-m", HOSPITALS) if table else (TRAINING,)
        self.parties, self.plan, self.running = folder / "parties.toml", folder / "plan.json", {}
        self._items, self._table = (n_train, n_test), table

    def prepare(self):
        """Make keys, the parties file, and each owner's part of the data."""
        self.folder.mkdir(parents=True, exist_ok=True)
        n_train, n_test = self._numbers_of_items()
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
        of = ["--n-train-items", self._items[0], "--n-test-items", self._items[1]]
        of = ["--table", self._table] if self._table else of
        self.hosts("split", "--between", *self.workers, *of, "--out", self.folder / "parts")
        for name in self.clients:
            part = prepare_folder(self.folder / "parts" / name)
            shutil.copy(IMAGES, part)

    def _numbers_of_items(self):
        """Of the training, and of the test items of each worker."""
        if not self._table:
            return [_shares(n, len(self.workers)) for n in self._items]
        dealt = tables.read(self._table).dealt(len(self.workers))
        return [table.n_train for table in dealt], [table.n_test for table in dealt]

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

    def script(self, *options, script=None):
        """What a script, by default the training's, prints with these options on these hosts.

        Raises:
            LoopbackError: it fails.
        """
        return self._done(self.script_command(*options, script=script))

    def script_command(self, *options, script=None):
        """The command line of a script on these hosts."""
        script = (script,) if script else self._script
        return [sys.executable, *map(str, (*script, "--parties", self.parties, *options))]

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
        self.running[name] = subprocess.Popen(
            command, cwd=REPOSITORY, env=os.environ | ONE_THREAD, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        if wait:
            self._wait_for(name)

    def _wait_for(self, name):
        process = self.running[name]
        if not process.stdout.readline().startswith("serving"):
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
            names = (*self.workers, PROVIDER, *clients)
            for name in names:
                self.start(name, *options, wait=False)
            for name in names:
                self._wait_for(name)
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
    parser.add_argument("--example", choices=["hospitals"], help="instead of train_encrypted.py")
    parser.add_argument("--options", type=shlex.split, default=[], help="of the script")


def main(args):
    """Train on hosts of this machine, and end in order."""
    folder = pathlib.Path(args.folder)
    data = {"workers": ("alice", "bob", "carol"), "table": TABLE} if args.example else {}
    hosts = Loopback(folder, say=lambda line: print(f"$ {line}", flush=True), **data)
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
