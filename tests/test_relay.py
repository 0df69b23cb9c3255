"""The relay of the benchmarks: what it carries is whole, in order, and no earlier than it may be.

No upper bound is asserted of any time: a busy machine is late.
"""

import contextlib
import hashlib
import random
import socket
import struct
import threading
import time

import pytest

from benchmarks.relay import HELD, PROFILES, Link, Profile, relayed

SECONDS = 60  # that a test may wait for a socket


@contextlib.contextmanager
def connections(profile, count=1):
    """`count` connections of alice to bob by a relay, each as alice's socket and bob's."""
    with contextlib.ExitStack() as stack:
        keep = stack.enter_context
        bob = keep(socket.create_server(("127.0.0.1", 0)))
        alice = keep(socket.create_server(("127.0.0.1", 0)))
        hosts = {"alice": alice.getsockname()[1], "bob": bob.getsockname()[1]}
        reached = keep(relayed(profile, hosts))
        bob.settimeout(SECONDS)
        pairs = []
        for _ in range(count):
            dialled = keep(socket.create_connection(("127.0.0.1", reached["alice"]["bob"])))
            pairs.append((dialled, keep(bob.accept()[0])))
        for end in (end for pair in pairs for end in pair):
            end.settimeout(SECONDS)
        yield pairs


def read(end, size):
    """The next `size` bytes, or as many as there are before the end of the stream."""
    data = bytearray()
    while len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return bytes(data)


def noise(size, seed):
    return random.Random(seed).randbytes(size)


def test_a_link_is_taken_by_one_chunk_after_the_other():
    link = Link(Profile(rate=100.0, latency=3.0))
    assert link.arrival(now=10.0, size=200) == 15.0
    assert link.arrival(now=10.0, size=100) == 16.0  # leaves when the first has left
    assert link.arrival(now=20.0, size=100) == 24.0  # the link was free
    assert link.arrival(now=20.0, size=0) == 24.0  # the end of a stream does not overtake it


@pytest.mark.parametrize("profile", PROFILES)
def test_more_than_the_link_holds_is_never_needed_to_keep_it_busy(profile):
    rate, latency = PROFILES[profile]
    assert latency == 0 or rate * latency < HELD / 2


@pytest.mark.parametrize("profile", PROFILES)
def test_bytes_arrive_whole_and_in_order_both_ways_at_once(profile):
    forth, back = noise(3 * HELD, seed=1), noise(2 * HELD + 1, seed=2)
    with connections(profile) as [(alice, bob)]:
        senders = [
            threading.Thread(target=end.sendall, args=(data,))
            for end, data in ((alice, forth), (bob, back))
        ]
        arrived = {}

        def receive(end, size):
            arrived[end] = hashlib.sha256(read(end, size)).digest()

        receivers = [
            threading.Thread(target=receive, args=(end, len(data)))
            for end, data in ((bob, forth), (alice, back))
        ]
        for thread in (*senders, *receivers):
            thread.start()
        for thread in (*senders, *receivers):
            thread.join()
        assert arrived == {
            bob: hashlib.sha256(forth).digest(),
            alice: hashlib.sha256(back).digest(),
        }


@pytest.mark.parametrize("profile", ["LAN", "WAN"])
def test_there_and_back_takes_the_latency_twice(profile):
    with connections(profile) as [(alice, bob)]:
        for turn in range(5):
            started = time.monotonic()
            alice.sendall(b"%d" % turn)
            bob.sendall(read(bob, 1) * 2)
            assert read(alice, 2) == b"%d%d" % (turn, turn)
            assert time.monotonic() - started >= 2 * PROFILES[profile].latency


def test_all_connections_of_two_hosts_share_one_link():
    rate, latency = PROFILES["WAN"]
    size = 1 << 20
    with connections("WAN", count=3) as pairs:
        started = time.monotonic()
        for alice, _ in pairs:  # the relay and the kernel hold it all
            alice.sendall(bytes(size))
        assert [len(read(bob, size)) for _, bob in pairs] == [size] * 3
        assert time.monotonic() - started >= 3 * size / rate + latency


def test_who_reads_nothing_stops_who_sends_and_nothing_is_lost():
    with connections("none") as [(alice, bob)]:
        data = noise(1 << 16, seed=3)
        alice.settimeout(1)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 64 * HELD:  # the kernel's buffers are smaller
                sent += alice.send(data[sent % len(data) :])
        assert sent > HELD
        alice.shutdown(socket.SHUT_WR)
        assert read(bob, 64 * HELD) == (data * (sent // len(data) + 1))[:sent]


def test_an_end_that_has_said_all_may_still_listen():
    with connections("LAN") as [(alice, bob)]:
        alice.sendall(b"all")
        alice.shutdown(socket.SHUT_WR)
        assert read(bob, 10) == b"all"
        bob.sendall(b"understood")
        bob.close()
        assert read(alice, 20) == b"understood"


def test_a_connection_that_breaks_breaks_at_both_ends():
    with connections("WAN") as [(alice, bob)]:
        alice.sendall(b"half a mess")
        assert read(bob, 11) == b"half a mess"
        alice.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        alice.close()  # a reset, as when a process is killed
        with pytest.raises(ConnectionResetError):
            bob.recv(1)


def test_where_nobody_listens_the_connection_is_closed():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with (
        relayed("LAN", {"alice": port, "bob": port}) as reached,
        socket.create_connection(("127.0.0.1", reached["alice"]["bob"])) as alice,
    ):
        alice.settimeout(SECONDS)
        with contextlib.suppress(ConnectionResetError):
            assert alice.recv(1) == b""
