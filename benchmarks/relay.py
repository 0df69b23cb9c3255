"""Hosts on one machine as if a network were between them: a relay that delays and limits.

    python -m benchmarks.relay WAN alice=7001 bob=7002    # until stdin is closed

Each host listens on a port of 127.0.0.1; for each ordered pair of hosts the relay listens on
another one, by which the first reaches the second. It prints them, as JSON. All that one host says
to another, over whatever connections, shares one link: a chunk leaves once the link is free, takes
size / rate to leave, and arrives a latency after that, in order. One process is all links.

What it leaves out: the handshake and the slow start of TCP, headers, and losses. A system that
connects often, or whose connections idle, gains by that.
"""

import asyncio
import contextlib
import functools
import itertools
import json
import math
import pathlib
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections import deque
from concurrent import futures
from typing import NamedTuple

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
HERE = "127.0.0.1"
HELD = 1 << 22  # bytes on their way on a connection; above rate × latency, or the link would idle
RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no time: who closes such a socket breaks it


class Profile(NamedTuple):
    """A network: `rate` of each link, in bytes a second, and `latency`, seconds one way."""

    rate: float
    latency: float


PROFILES = {
    "none": Profile(math.inf, 0.0),  # what the relay itself costs
    "LAN": Profile(1e9 / 8, 0.1e-3),
    "WAN": Profile(352e6 / 8, 20e-3),  # TF Encrypted's README has these
}


class Link:
    """All that one host says to another."""

    def __init__(self, profile):
        self.rate, self.latency = profile
        self._free = 0.0  # when all that was to leave before has left

    def arrival(self, now, size):
        """When `size` bytes that are there at the time `now` arrive."""
        self._free = max(self._free, now) + size / self.rate
        return self._free + self.latency


class Side(asyncio.Protocol):
    """The relay's side towards one end of a connection: what that end says goes to `other`, the
    side towards the other end. asyncio has set TCP_NODELAY on both.

    Args:
        link: of what this end says.
        other: a side that waits for this one to connect, or None.
        join: called once this side is there, if it waits for another.
    """

    def __init__(self, link, other=None, join=None):
        self.link, self.other, self.join = link, other, join
        self.loop = asyncio.get_running_loop()
        self.transport, self.full, self.ended = None, False, False
        self._way, self._held, self._paused, self._timer = deque(), 0, False, None

    def connection_made(self, transport):
        self.transport = transport
        if self.other:
            self.other.other = self
            self.other.transport.resume_reading()
        else:
            transport.pause_reading()
            self.join(self)

    def data_received(self, data):
        self._carry(data)

    def eof_received(self):
        self._carry(b"")
        return True  # the other end may go on

    def connection_lost(self, error):
        if error:  # else the relay has closed it
            self._carry(None)

    def _carry(self, data):
        """Send on bytes, b"" for their end, or None for a connection that is broken."""
        size = len(data or b"")
        self._way.append((self.link.arrival(self.loop.time(), size), data))
        self._held += size
        if self._held > HELD and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        if len(self._way) == 1:
            self._deliver()

    def _deliver(self):
        """Hand over what has arrived, as far as it is taken, and wait for the next."""
        if self._timer:
            self._timer.cancel()
        while self._way and not self.other.full:
            due, data = self._way[0]
            if due > self.loop.time():
                self._timer = self.loop.call_at(due, self._deliver)
                break
            self._way.popleft()
            self._hand_over(data)
        if self._paused and self._held <= HELD:
            self._paused = False
            self.transport.resume_reading()

    def _hand_over(self, data):
        to = self.other.transport
        if data is None:
            if not to.is_closing():
                to.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                to.abort()
        elif data == b"":
            self.ended = True
            with contextlib.suppress(OSError):  # one that is broken; that comes by itself
                to.write_eof()
            if self.other.ended:
                self.transport.close()
                to.close()
        else:
            self._held -= len(data)
            if not to.is_closing():
                to.write(data)

    def pause_writing(self):
        self.full = True

    def resume_writing(self):
        self.full = False
        self.other._deliver()


# ---- The process ---------------------------------------------------------------------------------


async def relay(profile, ports):
    """Relay between all pairs of hosts until stdin is closed; prints where each reaches another.

    Args:
        ports: name of a host -> the port that it listens on.
    """
    loop, tasks, stopped = asyncio.get_running_loop(), set(), asyncio.Event()
    links = {pair: Link(profile) for pair in itertools.permutations(ports, 2)}

    async def connect(pair, side):
        try:
            opposite = functools.partial(Side, links[pair[::-1]], side)
            await loop.create_connection(opposite, HERE, ports[pair[1]])
        except OSError:  # nobody listens there
            side.transport.abort()

    def join(pair, side):
        tasks.add(task := loop.create_task(connect(pair, side)))
        task.add_done_callback(tasks.discard)

    reached = {name: {} for name in ports}
    for pair, link in links.items():
        accepted = functools.partial(Side, link, join=functools.partial(join, pair))
        server = await loop.create_server(accepted, HERE, 0)
        reached[pair[0]][pair[1]] = server.sockets[0].getsockname()[1]
    print(json.dumps(reached), flush=True)
    loop.add_reader(sys.stdin, stopped.set)
    await stopped.wait()


def new_loop():
    """An event loop whose timers keep to microseconds: epoll's keep to milliseconds."""
    with contextlib.suppress(OSError):  # Linux has it: by how much it delays a timer by itself
        pathlib.Path("/proc/self/timerslack_ns").write_text("1")
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


@contextlib.contextmanager
def relayed(profile, ports):
    """A relay's process, for a `with` block.

    Args:
        profile: a key of `PROFILES`; `ports`: name of a host -> the port that it listens on.
    Yields:
        name of a host -> name of another -> the port by which the first reaches the second.
    """
    command = [sys.executable, "-m", "benchmarks.relay", profile]
    command += [f"{name}={port}" for name, port in ports.items()]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield json.loads(process.stdout.readline())


def measured(profile):
    """What a relay really gives two hosts: seconds there and back, and bytes a second."""
    size, times = 1 << 24, []
    with contextlib.ExitStack() as stack:
        keep = stack.enter_context
        server = keep(socket.create_server((HERE, 0)))
        port = server.getsockname()[1]
        reached = keep(relayed(profile, {"near": port, "far": port}))
        near = keep(socket.create_connection((HERE, reached["near"]["far"])))
        far = keep(server.accept()[0])
        for _ in range(21):
            started = time.perf_counter()
            near.sendall(b"?")
            far.sendall(far.recv(1))
            near.recv(1)
            times.append(time.perf_counter() - started)
        there_and_back = statistics.median(times)
        keep(futures.ThreadPoolExecutor()).submit(near.sendall, bytes(size))
        started, left = time.perf_counter(), size
        while left:
            left -= len(far.recv(left))
        return there_and_back, size / (time.perf_counter() - started - there_and_back / 2)


def main(profile, *hosts):
    ports = {name: int(port) for name, port in (host.split("=") for host in hosts)}
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(relay(PROFILES[profile], ports))


if __name__ == "__main__":
    main(*sys.argv[1:])
