"""Hosts on this machine: network namespaces with addresses of their own, on a switch of their own.

It takes root and `ip` (iproute2). Nothing is added to the machine's own network.
"""

import contextlib
import os
import shutil
import signal
import subprocess

PREFIX = 24  # bits of an address that all hosts have in common
TO_END = 20  # seconds that a process may take


def unavailable():
    """Why there can be no namespaces here, or None."""
    if os.geteuid():
        return "network namespaces are for root"
    if shutil.which("ip") is None:
        return "network namespaces need ip, of iproute2"
    try:
        with Namespaces({}):
            return None
    except subprocess.CalledProcessError as error:
        return f"no network namespaces here: {error.stderr.strip()}"


class Namespaces:
    """Hosts that reach each other, and nothing else, for a `with` block.

    Args:
        addresses: name of a host, at most 15 characters -> its IPv4 address.
    Raises:
        subprocess.CalledProcessError: `ip` cannot make them.
    """

    def __init__(self, addresses):
        self.addresses, self._undo = addresses, contextlib.ExitStack()

    def __enter__(self):
        with self._undo as undo:
            self._switch = self._add("")
            _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
            _ip("-n", self._switch, "link", "set", "switch", "up")
            for name, address in self.addresses.items():
                self._connect(name, address)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *about):
        self._undo.close()

    def _add(self, name):
        """A namespace; the id of this process is in its name, so that two tests have two."""
        namespace = f"test-{os.getpid()}-{name}"
        _ip("netns", "add", namespace)
        self._undo.callback(_ip, "netns", "delete", namespace)
        return namespace

    def _connect(self, name, address):
        host = self._add(name)
        end = ("type", "veth", "peer", "name", "eth0", "netns", host)
        _ip("-n", self._switch, "link", "add", name, *end)
        _ip("-n", self._switch, "link", "set", name, "master", "switch", "up")
        _ip("-n", host, "address", "add", f"{address}/{PREFIX}", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", host, "link", "set", device, "up")

    def start(self, host, commands, **options):
        """Start bash with these commands on a host; it is killed with the namespaces, and all that
        it has started.

        Returns:
            the `subprocess.Popen`, made with these options.
        """
        namespace = f"test-{os.getpid()}-{host}"
        command = ["ip", "netns", "exec", namespace, "bash", "-e", "-o", "pipefail", "-c", commands]
        options |= {"stdin": subprocess.DEVNULL, "start_new_session": True}
        process = subprocess.Popen(command, **options)
        self._undo.callback(_kill, process)
        return process


def _kill(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(TO_END)


def _ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
