"""docs/deployment.md, followed word for word: each command on its host, in a network namespace.

A block that begins with ```sh and names of hosts is run on each of them, in bash, and must succeed;
```files says what goes from whom to whom. A command that serves is left running. What is changed is
`SUBSTITUTIONS`, and nothing else. A host has a folder with this repository's files, by links.

It takes root and `ip` (iproute2); else the tests that need namespaces are skipped, and say so.
"""

import configparser
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch

from smpc.arguments import Parser
from smpc.hosts import serve
from smpc.hosts.configuration import read
from smpc.hosts.parts import Part
from tests import programs, records
from tests.hosts.namespaces import Namespaces, unavailable

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "deployment.md").read_text()
SUBSTITUTIONS = {"--epochs 10": "--epochs 1"}  # everything else is as the page has it
# of the repository, that commands need
LINKS = "smpc", "train_encrypted.py", "predict_encrypted.py", "data"
ADDRESSES = {
    "alice": "10.11.0.1",
    "bob": "10.11.0.2",
    "crypto-provider": "10.11.0.3",
    "server": "10.11.0.4",
    "carol": "10.11.0.5",
}
SERVES = "python -m smpc.hosts serve "
TO_START, TO_RUN = 60, 300  # seconds that a command may take at most
N_WEIGHTS = 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10


def blocks(language):
    """(the words after the language, the text) of the page's blocks in it, in order."""
    found = re.findall(rf"^```{language}( [^\n]*)?\n(.*?)^```$", PAGE, re.M | re.S)
    return [(words.split(), text) for words, text in found]


class Hosts:
    """The hosts of the page.

    Args:
        folder: for a folder of each; `namespaces`: `Namespaces` with the hosts.
    Attributes:
        serving: name -> the `Run` of a party that serves.
        printed: (host, commands, what they printed), in order.
        revealed: host -> lines that its party has printed between its first and its last.
    """

    def __init__(self, folder, namespaces):
        self.folder, self.namespaces = folder, namespaces
        self.serving, self.printed, self.revealed = {}, [], {}
        for name in ADDRESSES:
            (folder / name).mkdir()
            for link in LINKS:
                (folder / name / link).symlink_to(REPOSITORY / link)
        (folder / "bin").mkdir()
        python = folder / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -S {programs.__file__} "$@"\n')
        python.chmod(0o755)

    def run(self, names, commands):
        """Run commands on hosts, at once, or start what serves there."""
        for there, here in SUBSTITUTIONS.items():
            commands = commands.replace(there, here)
        if commands.startswith(SERVES):
            for host in self.serving.keys() & set(names):
                self.stop(host)
        for host, run in [(host, Run(self, host, commands)) for host in names]:
            if commands.startswith(SERVES):
                self.serving[host] = run
                (line,) = re.findall(rf"^serving {host} at .*\n", PAGE, re.M)
                run.wait_for(line)
            else:
                assert run.process.wait(TO_RUN) == 0, f"{host}: {commands}: {run.err.read_text()}"
                self.printed.append((host, commands, run.out.read_text()))

    @property
    def environment(self):
        """Of a shell in which the page's `. .venv/bin/activate` was done, and of nothing else; but
        `python` is what stands for it, see `programs`."""
        path = f"{self.folder / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, programs.SERVER: programs.server()}

    def send(self, route):
        """Bring a file from a host to others: `alice: alice.toml -> server`."""
        sender, name, receivers = re.fullmatch(r"([\w-]+): ([\w.-]+) -> ([\w -]+)", route).groups()
        content = (self.folder / sender / name).read_bytes()
        for receiver in receivers.split():
            (self.folder / receiver / name).write_bytes(content)

    def stop(self, host):
        """End a party as the page says, and see that it ends in order."""
        run = self.serving.pop(host)
        run.process.send_signal(signal.SIGTERM)
        assert run.process.wait(TO_START) == 0
        _, *self.revealed[host], last = run.out.read_text().splitlines()
        assert last == f"{host} has ended"

    def said(self, host, command):
        """What commands that begin like this printed on a host."""
        (text,) = [out for at, run, out in self.printed if at == host and run.startswith(command)]
        return text


class Run:
    """Commands that run on a host.

    Args:
        hosts: `Hosts`; `host`: the name of one; `commands`: for bash.
    Attributes:
        process: the `subprocess.Popen`; `out`, `err`: paths of what it prints.
    """

    def __init__(self, hosts, host, commands):
        number = sum(1 for _ in hosts.folder.glob("*.out"))
        self.out, self.err = (hosts.folder / f"{number}.{end}" for end in ("out", "err"))
        options = {"cwd": hosts.folder / host, "env": hosts.environment}
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = hosts.namespaces.start(host, commands, stdout=out, stderr=err, **options)

    def wait_for(self, line):
        """Until this is all that it has printed."""
        until = time.monotonic() + TO_START
        while time.monotonic() < until and self.process.poll() is None:
            if self.out.read_text() == line:
                return
            time.sleep(0.02)
        raise AssertionError(f"{line!r} is not printed: {self.err.read_text()}")


@pytest.fixture(scope="module")
def why_not():
    """Skips where there can be no network namespaces, and says why."""
    if why := unavailable():
        pytest.skip(why)


@pytest.fixture(scope="module")
def deployed(why_not, tmp_path_factory):
    """The `Hosts` after all that the page says was done."""
    with Namespaces(ADDRESSES) as namespaces:
        hosts = Hosts(tmp_path_factory.mktemp("deployment"), namespaces)
        for match in re.finditer(r"^```(sh|files)([^\n]*)\n(.*?)^```$", PAGE, re.M | re.S):
            kind, names, text = match.groups()
            if kind == "files":
                for route in text.splitlines():
                    hosts.send(route)
            else:
                hosts.run(names.split(), text)
        for host in list(hosts.serving):
            hosts.stop(host)
    return hosts


def test_every_substitution_is_of_something():
    commands = "".join(text for names, text in blocks("sh") if names)
    assert [commands.count(there) > 0 for there in SUBSTITUTIONS] == [True] * len(SUBSTITUTIONS)


def test_it_ends_with_a_trained_model(deployed):
    server = deployed.folder / "server"
    weights = torch.load(server / "model.pt", weights_only=True)
    assert sum(tensor.numel() for tensor in weights.values()) == N_WEIGHTS
    record = records.read(server / "results")
    losses = [step["loss"] for step in record["steps"]]
    assert len(losses) == 10 and losses[-1] < 0.9 < 1 < losses[0]
    assert [100 < test["correct"] <= 640 for test in record["tests"]] == [True]
    assert not record["interrupted"]


def test_the_administrators_see_what_the_page_says(deployed):
    digests = set()
    for name in ("alice", "bob", "crypto-provider"):
        shown = deployed.said(name, "python -m smpc.hosts show plan.json")
        digests.add(shown.splitlines()[0])
        assert f"revealed in all: {11 + N_WEIGHTS:,} to the server" in shown
        assert "; checked\n" in shown
        assert shown.endswith("the same but for the nonce\n")
        healthy = deployed.said("server", "python -m smpc.hosts health alice")
        assert healthy.count(" is up\n") == 3 and healthy in PAGE
    assert len(digests) == 1


@pytest.mark.parametrize("worker", ["alice", "bob"])
def test_what_the_owners_read_in_their_journals(deployed, worker):
    told = deployed.said(worker, "python -m smpc.hosts journal").splitlines()
    assert f"revealed: {11 + N_WEIGHTS:,} numbers" in told
    assert "shared, masked: 640 items" in told
    assert "messages refused: 0" in told and "errors: 0" in told
    (sessions,) = [line for line in told if line.startswith("sessions: ")]
    assert re.fullmatch(r"sessions: 1 \(1 plan [0-9a-f]{12}\)", sessions)


def test_keys_and_data_stay_where_they_are(deployed):
    for name in ADDRESSES:
        folder = deployed.folder / name
        assert list(folder.rglob("key.pem")) == [folder / name / "key.pem"]
        assert (folder / name / "key.pem").stat().st_mode & 0o777 == 0o600
        parts = sorted(file.parent.name for file in folder.rglob("train-images-idx3-ubyte"))
        assert parts == (["mine"] if name in ("alice", "bob") else [])


def test_the_client_alone_is_told_the_digits(deployed):
    for name in ("alice", "bob", "crypto-provider", "carol"):
        shown = deployed.said(name, "python -m smpc.hosts show predict.json")
        assert "revealed in all: 640 to carol" in shown
        assert shown.endswith("the same but for the nonce\n")
    said = deployed.said("server", "python predict_encrypted.py model.pt").splitlines()
    assert said[0] == "digits revealed to carol: 640" and len(said) == 3
    lines = deployed.revealed.pop("carol")
    assert all(re.fullmatch(r"revealed:( \d)+", line) for line in lines)
    images = deployed.folder / "carol" / "images"
    labels = Part(REPOSITORY / "data" / "MNIST" / "raw").labels["test"][:640]
    digits = [int(digit) for line in lines for digit in line.split()[1:]]
    assert len(digits) == 640 and sum(digits == labels) > 100
    assert [file.name for file in images.iterdir()] == ["t10k-images-idx3-ubyte"]
    assert deployed.revealed == {name: [] for name in ("alice", "bob", "crypto-provider")}


def test_a_new_certificate_is_another(deployed):
    """The last thing that the page does is to give alice one; the server has the old one yet."""
    old = read(deployed.folder / "server" / "parties.toml").parties["alice"].certificate
    new = (deployed.folder / "alice" / "alice" / "certificate.pem").read_bytes()
    assert new != old
    assert new.decode() in (deployed.folder / "alice" / "alice.toml").read_text()
    assert (deployed.folder / "alice" / "alice" / "journal.jsonl").stat().st_size


def namespaces():
    """Those that this process has made, and that are there."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if name.startswith(f"test-{os.getpid()}-")]


def test_no_namespace_is_left(deployed):
    assert namespaces() == []


def test_namespaces_reach_each_other_alone_and_end_with_what_fails(why_not, tmp_path):
    route = tmp_path / "route"
    with (
        pytest.raises(ZeroDivisionError),
        Namespaces({"alice": "10.11.0.1", "bob": "10.11.0.2"}) as made,
    ):
        assert len(namespaces()) == 3
        with route.open("w") as out:
            assert made.start("alice", "ip route", stdout=out).wait(TO_START) == 0
        left = made.start("bob", "sleep 600")
        raise ZeroDivisionError
    (line,) = route.read_text().splitlines()
    assert line.startswith("10.11.0.0/24 dev eth0 ")
    assert left.returncode == -signal.SIGKILL
    assert namespaces() == []


def test_the_unit():
    """It starts the command of the page, and may write in the party's folder alone."""
    ((_, text),) = blocks("ini")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string(text)
    service = unit["Service"]
    folder = service["WorkingDirectory"]
    python, command = service["ExecStart"].split(" ", 1)
    commands = [text for names, text in blocks("sh") if names == ["alice"]]
    assert f"python {command}\n" in commands
    assert python == f"{folder}/.venv/bin/python"
    parser = Parser("", "serve")
    serve.arguments(parser)
    args = parser.parse_args(shlex.split(command)[3:])
    assert service["ReadWritePaths"] == f"{folder}/{args.name}"
    assert not args.any_program
    wanted = {"NoNewPrivileges": "yes", "ProtectSystem": "strict", "Restart": "on-failure"}
    assert {name: service[name] for name in wanted} == wanted
    assert service["User"] == args.name
