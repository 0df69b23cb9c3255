"""Frames and channels: what is no frame is no more than that, and who calls is who it is."""

from types import SimpleNamespace

import grpc
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.hosts import channels
from smpc.hosts.calls import Calls
from smpc.hosts.channels import MOST_TEXT, Post, read_frame
from smpc.semi2k.network import Counters, NetworkError
from smpc.semi2k.owner import Owner
from smpc.semi2k.wire import Refused, pack
from smpc.semi2k.worker import Worker
from tests.hosts.conftest import SERVING, STEPS, Training, certify

# ---- Frames --------------------------------------------------------------------------------------


def test_frames_are_read_as_they_were_made():
    counters = Counters()
    counters.messages, counters.rounds = {"opening": 2}, 1
    assert read_frame(channels.message_frame("a", "b", b"x")) == ("message", "a", "b", b"x")
    assert read_frame(channels.error_frame("why")) == ("error", "why")
    assert read_frame(channels.ready_frame()) == ("ready",)
    tally = read_frame(channels.tally_frame(counters))
    assert tally == ("tally", {"opening": 2}, {}, 1, 0, 0)


def test_an_error_is_no_longer_than_a_reader_takes():
    _, text = read_frame(channels.error_frame("x" * (2 * MOST_TEXT)))
    assert text == "x" * MOST_TEXT


KINDS = st.sampled_from(["message", "error", "ready", "tally", "other"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.binary(max_size=9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=64)
    | VALUES.map(msgpack.packb)
    | st.tuples(KINDS, st.lists(VALUES, max_size=6)).map(lambda x: msgpack.packb([x[0], *x[1]]))
)
def test_whatever_comes_is_a_frame_or_none(frame):
    try:
        kind, *fields = read_frame(frame)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert msgpack.packb((kind, *fields)) == msgpack.packb(msgpack.unpackb(frame))
        assert kind in ("message", "error", "ready", "tally")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"\x92\xa7message",
        b"\x91" * 2000,  # lists in lists
        b"\xdd\xff\xff\xff\xff",  # a list of 2^32 - 1
        b"\xc6\xff\xff\xff\xffx",
        b"\xd6\xff\x00\x00\x00\x00",  # a time
        msgpack.packb({"message": 1}),
        msgpack.packb([["message"], "a", "b", b""]),
        msgpack.packb(["message", "a", "b", "text"]),
        msgpack.packb(["message", "a", "b", b"", b""]),
        channels.ready_frame() * 2,
    ],
)
def test_what_is_no_frame(frame):
    with pytest.raises(ValueError, match=r"no frame$|of other fields$"):
        read_frame(frame)


# ---- Who is there --------------------------------------------------------------------------------


def shown(*certificates, version=b"TLSv1.3"):
    """A context of a call in which these were shown."""
    about = {"x509_pem_cert": list(certificates), "ssl_tls_version": [version]}
    return SimpleNamespace(auth_context=lambda: about)


def test_a_caller_is_whose_certificate_was_shown(hosts):
    for name, (_, certificate) in hosts.identities.items():
        assert channels.caller(shown(certificate), hosts.configuration).name == name
    alice, bob = (hosts.identities[name][1] for name in ("alice", "bob"))
    for context in (
        shown(),
        shown(alice, bob),
        shown(certify("alice")[1]),
        shown(alice, version=b"TLSv1.2"),
        SimpleNamespace(auth_context=dict),
    ):
        assert channels.caller(context, hosts.configuration) is None


class Failed(grpc.RpcError):
    """A call that failed."""

    def __init__(self, code, details):
        self.code, self.details = lambda: code, lambda: details


@pytest.mark.parametrize(
    ("code", "details", "words"),
    [
        ("UNAVAILABLE", "failed to connect\nto all addresses", "is gone, or cannot be reached"),
        ("UNAVAILABLE", "Ssl handshake failed: CERTIFICATE_VERIFY_FAILED", "the same parties file"),
        ("DEADLINE_EXCEEDED", None, "is gone, or cannot be reached: start it"),
        ("CANCELLED", "", "has ended the session"),
        ("PERMISSION_DENIED", "alice\nserves\tunder another plan", "alice serves under another"),
        ("RESOURCE_EXHAUSTED", "", "refuses: resource_exhausted"),
    ],
)
def test_why_a_call_failed_is_a_line(hosts, code, details, words):
    party = hosts.configuration.parties["alice"]
    line = channels.reason(Failed(grpc.StatusCode[code], details), party)
    assert line.startswith(f"alice at {party.address} ")
    assert words in line
    assert len(line.splitlines()) == 1


# ---- Messages ------------------------------------------------------------------------------------


@pytest.fixture
def post(hosts):
    """The `Post` of alice's host."""
    roster = hosts.configuration.roster()
    post = Post("alice", roster, "a" * 32)
    post.ends |= {"alice": Worker("alice", roster), "alice-data": Owner("alice-data", roster)}
    post.out |= {name: channels.new_queue() for name in ("bob", "dealer", "server", "carol")}
    return post


@pytest.mark.parametrize(
    ("host", "sender", "receiver"),
    [
        ("bob", "alice", "alice"),
        ("bob", "dealer", "alice"),
        ("bob", "server", "alice"),
        ("bob", "alice-data", "alice"),
        ("bob", "carol-data", "alice"),
        ("bob", "bob", "bob"),
        ("bob", "bob", "dealer"),
        ("bob", "bob", "nobody"),
        ("bob", "bob-data-data", "alice"),
        ("dealer", "dealer-data", "alice"),
        ("stranger", "stranger", "alice"),
        ("server", "bob", "alice"),
        ("carol", "carol", "alice"),
    ],
)
def test_a_host_speaks_for_its_own_ends_to_those_here(post, host, sender, receiver):
    with pytest.raises(ValueError, match=f"^{host} speaks as '{sender}' to '{receiver}'$"):
        post.came(host, sender, receiver, pack("key", key=bytes(32)))
    assert not post.ends["alice"].has_key
    assert not post._held


def test_what_comes_before_the_key_waits_for_it(post):
    shared = pack("public", id=0, shape=(1,), values=bytes(8))
    post.came("server", "server", "alice", shared)
    assert not post.ends["alice"].values
    post.came("dealer", "dealer", "alice", pack("key", key=bytes(32)))
    assert list(post.ends["alice"].values) == [0]
    assert not post._held
    with pytest.raises(Refused, match=r"^value 0 is there already"):
        post.came("server", "server", "alice", shared)


def test_what_leaves_is_counted_and_framed(post):
    post.came("dealer", "dealer", "alice-data", pack("key", key=bytes(32)))
    messages = post.ends["alice-data"].share(0, [1, 2], None)
    assert [receiver for receiver, _ in messages] == ["dealer", "alice", "bob"]
    post.came("dealer", "dealer", "alice", pack("key", key=bytes([1] * 32)))
    post.send("alice-data", messages)
    for host, message in (("dealer", messages[0][1]), ("bob", messages[2][1])):
        frame = post.out[host].get_nowait()
        assert read_frame(frame) == ("message", "alice-data", host, message)
        assert post.out[host].empty()
    assert post.counters.sent == {
        "sharing": {"alice-data": sum(len(messages[k][1]) for k in (0, 2))}
    }
    assert list(post.ends["alice"].values) == [0]


# ---- Sessions ------------------------------------------------------------------------------------


def test_a_session_over_channels_reveals_what_one_in_memory_does(served):
    losses = []
    for connect in (served.connected, None):
        if connect is None:
            training = Training(served.in_memory())
            losses.append([training.step(training.batch(owner)).item() for owner in STEPS])
            continue
        with connect() as session:
            training = Training(session)
            losses.append([training.step(training.batch(owner)).item() for owner in STEPS])
            counted = session.network.counted()
    assert losses[0] == pytest.approx(losses[1], rel=0.2)
    assert losses[0][0] == losses[1][0]  # before anything is rounded
    assert counted.rounds > 0
    assert set(counted.sent["opening"]) == {"alice", "bob"}
    (ended,) = served.entries("alice", "ended")
    assert ended["reason"] == "the server has ended it"
    assert ended["sent"]["opening"] > 0
    assert ended["received"] > 0


def test_a_session_ends_with_its_server_and_the_next_begins(served):
    with pytest.raises(KeyboardInterrupt), served.connected() as session:
        training = Training(session)
        training.step(training.batch("alice"))
        raise KeyboardInterrupt
    for name in SERVING:
        (ended,) = served.entries(name, "ended")
        assert ended["reason"] == "the server is gone"
    served.check()


def test_a_call_that_is_gone_before_it_is_heard_leaves_nobody_taken(served):
    for _ in range(20):
        with served.dial("alice") as channel:
            call = channel.stream_stream(f"/{channels.SERVICE}/Session")
            call(iter(()), metadata=tuple(served.about().items())).cancel()
    served.wait_until_free()
    served.check()


def test_a_party_that_stops_says_so(served):
    stopped = pytest.raises(NetworkError, match=r"^alice: it is being stopped$")
    with stopped, served.connected() as session:
        training = Training(session)
        training.step(training.batch("alice"))
        served.running["alice"].stop("it is being stopped")
        training.step(training.batch("bob"))
    assert served.entries("alice", "ended")[-1]["reason"] == "it is being stopped"
    served.check()


def test_a_party_that_is_not_there_is_named(served):
    served.servers.pop("bob").stop(grace=None).wait()
    identity = served.hosts.identities["server"]
    bob = served.configuration.parties["bob"]
    with pytest.raises(NetworkError) as error:
        Calls(served.configuration, *identity, served.about(), 0.5)
    assert str(error.value).startswith(f"bob at {bob.address} is gone, or cannot be reached")
    served.wait_until_free()
    served.servers["bob"] = served.running["bob"].serve(bob.address)
    served.check()


def test_an_address_is_one_partys(served):
    with pytest.raises(NetworkError, match=r"cannot listen at .*: another process does$"):
        served.running["bob"].serve(served.configuration.parties["alice"].address)


def test_health_is_told_to_parties(served):
    for name in SERVING:
        for caller in served.hosts.identities:
            assert served.is_up(name, caller)
    assert not served.entries("alice", "refused")
