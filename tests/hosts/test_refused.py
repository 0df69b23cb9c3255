"""Whoever else calls, and whatever else is said, is refused with a line; the party serves on."""

import contextlib
import dataclasses
import datetime
import gc
import os
import pathlib
import random
import re
import socket
import ssl
import threading
import time

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

import train_encrypted
from smpc.hosts import channels, configuration
from smpc.hosts import party as party_module
from smpc.hosts.channels import message_frame
from smpc.semi2k.network import NetworkError
from smpc.semi2k.wire import pack
from tests.hosts.conftest import (
    BATCH,
    SERVING,
    STEPS,
    TIME_LIMIT,
    Call,
    Training,
    altered,
    certify,
    initial,
    losses_in_the_clear,
)

DENIED = grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture(autouse=True)
def one_line_each(capfd, caplog):
    """What a party refuses is in its journal and said to who called; on stderr is a line for each
    session that did not end in order, and nothing else."""
    yield
    assert caplog.records == []
    line = r"python -m smpc\.hosts: [a-z]+: the session has ended: \S.*"
    assert all(re.fullmatch(line, said) for said in capfd.readouterr().err.splitlines())


def refusals(planned, name):
    """(who, why) of all that a party refused, by its journal."""
    entries = planned.entries(name, "refused")
    assert all(entry["reason"].isprintable() for entry in entries)
    return [(entry["sender"], entry["reason"]) for entry in entries]


# ---- Who calls -----------------------------------------------------------------------------------


def issued(name, by, by_key=None):
    """(key, certificate) in the name of a party, PEM, issued by another's key, or by its own; the
    certificate does not say what it may be used for."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject, issuer = (
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)]) for common in (name, by)
    )
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(load_pem_private_key(by_key, None) if by_key else key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, certificate.public_bytes(Encoding.PEM)


def code_of(call):
    """The status that a call fails with."""
    with pytest.raises(grpc.RpcError) as failed:
        call()
    return failed.value.code()


def check_health(channel):
    return channel.unary_unary(f"/{channels.HEALTH}/Check")(b"", timeout=TIME_LIMIT)


@pytest.mark.parametrize("name", SERVING)
def test_a_stranger_gets_no_connection(served, name):
    party = served.configuration.parties[name]
    target = (*channels.OPTIONS, ("grpc.ssl_target_name_override", name))
    credentials = grpc.ssl_channel_credentials(party.certificate)
    with grpc.secure_channel(party.address, credentials, options=target) as channel:
        assert code_of(lambda: check_health(channel)) == grpc.StatusCode.UNAVAILABLE
    for identity in (certify("server"), certify("mallory")):
        with served.dial(name, identity=identity) as channel:
            assert code_of(lambda: check_health(channel)) == grpc.StatusCode.UNAVAILABLE
    assert not refusals(served, name)  # nothing has come that could be refused
    served.check()


@pytest.mark.parametrize("victim", ["server", "alice", "bob"])
def test_no_partys_key_issues_certificates(served, victim):
    mallory = issued(victim, "bob", served.hosts.identities["bob"][0])
    with served.dial("alice", identity=mallory) as channel:
        assert code_of(lambda: check_health(channel)) == grpc.StatusCode.UNAVAILABLE
    served.check()


@pytest.mark.parametrize("victim", ["server", "alice"])
def test_a_certificate_that_another_partys_key_issued_is_nobodys(hosts, planned, victim):
    """Where bob's own does not say that it may issue none, so that TLS lets it pass."""
    bobs = issued("bob", "bob")
    others = dict(planned.configuration.parties)
    others["bob"] = dataclasses.replace(others["bob"], certificate=bobs[1])
    planned.configuration = configuration.Configuration(others.values())
    planned.make("alice")
    alice = planned.configuration.parties["alice"]
    planned.servers["alice"] = planned.running["alice"].serve(alice.address)
    with planned.dial("alice", identity=bobs) as channel:
        assert check_health(channel) == channels.SERVING
    with planned.dial("alice", identity=issued(victim, "bob", bobs[0])) as channel:
        assert code_of(lambda: check_health(channel)) == DENIED
        why = "the certificate that was shown is no party's"
        for method in ("Session", "Say"):
            assert Call(channel, method, planned.about()).refusal() == (DENIED, why)
    assert refusals(planned, "alice") == [("a stranger", why)] * 3
    with planned.dial("alice", identity=bobs) as channel:
        assert check_health(channel) == channels.SERVING


def test_who_answers_is_who_was_called(served):
    alice, bob = (served.configuration.parties[name] for name in ("alice", "bob"))
    key, certificate = served.hosts.identities["server"]
    for trusted in (bob.certificate, issued("alice", "bob", served.hosts.identities["bob"][0])[1]):
        credentials = grpc.ssl_channel_credentials(trusted, key, certificate)
        target = (*channels.OPTIONS, ("grpc.ssl_target_name_override", "alice"))
        with grpc.secure_channel(alice.address, credentials, options=target) as channel:
            assert code_of(lambda: check_health(channel)) == grpc.StatusCode.UNAVAILABLE
    served.check()


def handshake(served, name, version):
    """The version that TLS agrees on with a party, which may be no other than this."""
    identity, party = served.folder / name, served.configuration.parties[name]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.load_verify_locations(cadata=party.certificate.decode())
    context.load_cert_chain(identity / "certificate.pem", identity / "key.pem")
    context.set_alpn_protocols(["h2"])
    host, port = party.address.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=TIME_LIMIT) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        return tls.version()


@pytest.mark.parametrize("name", SERVING)
def test_older_tls_is_refused(served, name):
    assert handshake(served, name, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(served, name, ssl.TLSVersion.TLSv1_2)
    served.check()


def test_plain_text_is_refused(served):
    address = served.configuration.parties["alice"].address
    with grpc.insecure_channel(address) as channel:
        assert code_of(lambda: check_health(channel)) == grpc.StatusCode.UNAVAILABLE
    host, port = address.split(":")
    for said in (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        random.randbytes(999),
    ):
        with socket.create_connection((host, int(port)), timeout=TIME_LIMIT) as plain:
            plain.sendall(said)
            plain.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(ConnectionError):
                while block := plain.recv(1 << 16):
                    answer += block
        assert b"200" not in answer
        assert channels.SERVING not in answer
    served.check()


# ---- Calls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", ["alice", "bob", "dealer", "carol"])
def test_nobody_but_the_server_opens_a_session(served, caller):
    for name in SERVING:
        with served.dial(name, caller) as channel:
            why = f"{caller} is not the server, and opens no session"
            assert Call(channel, "Session", served.about()).refusal() == (DENIED, why)
        assert refusals(served, name) == [(caller, why)]
    served.check()


def test_the_server_speaks_in_its_session_alone(served):
    with served.connected() as session, served.dial("alice") as channel:
        training = Training(session)
        training.step(training.batch("alice"))
        about = served.about(session=served.running["alice"]._session.id)
        why = "the server speaks in the session that it opens"
        assert Call(channel, "Say", about).refusal() == (DENIED, why)
    assert refusals(served, "alice") == [("server", why)]
    served.check()


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"version": "2"}, "alice speaks version 1, not 2"),
        ({"version": ""}, "alice speaks version 1, not "),
        ({"version": "1.0"}, "alice speaks version 1, not 1.0"),
        ({"plan": "0" * 64}, "alice serves under another plan ({})"),
        ({"plan": "any"}, "alice serves under another plan ({})"),
        ({"plan": ""}, "alice serves under another plan ({})"),
    ],
)
def test_another_version_or_plan(served, other, why):
    with served.dial("alice") as channel:
        code, line = Call(channel, "Session", served.about(**other)).refusal()
        assert (code, line) == (DENIED, why.format(served.plan.digest[:16]))
    assert refusals(served, "alice") == [("server", line)]
    served.check()


def test_a_call_that_says_nothing_of_itself(served):
    with served.dial("alice") as channel:
        why = "alice speaks version 1, not None"
        for method in ("Session", "Say"):
            assert Call(channel, method, {}).refusal() == (DENIED, why)
        about = {"version": channels.VERSION}
        assert Call(channel, "Session", about).refusal()[0] == DENIED
        unknown = channel.unary_unary(f"/{channels.SERVICE}/Reveal")
        code = code_of(lambda: unknown(b"", timeout=TIME_LIMIT))
        assert code == grpc.StatusCode.UNIMPLEMENTED
    assert served.running["alice"]._session is None
    served.check()


def test_a_plan_is_not_any_program(any_program):
    digest = any_program.hosts.plan.digest
    with any_program.dial("alice") as channel:
        why = "alice serves under another plan (any)"
        about = any_program.about(plan=digest)
        assert Call(channel, "Session", about).refusal() == (DENIED, why)
    any_program.check()


@pytest.mark.parametrize("session", ["", "b" * 32, None])
def test_nobody_speaks_in_another_session(served, session):
    about = served.about(session=session)
    about = {name: value for name, value in about.items() if value is not None}
    why = "alice takes no part in that session"
    with served.dial("alice", "bob") as channel:
        assert Call(channel, "Say", about).refusal() == (DENIED, why)  # while there is none
        with served.connected() as other:
            assert Call(channel, "Say", about).refusal() == (DENIED, why)
            training = Training(other)
            training.step(training.batch("alice"))
    assert refusals(served, "alice") == [("bob", why)] * 2
    served.check()


def test_a_second_server_is_told_that_it_is_taken(served):
    losses = []
    with served.connected() as session:
        training = Training(session)
        for owner in STEPS:
            address = served.configuration.parties["alice"].address
            taken = f"alice at {address} refuses: alice takes part in another session"
            with pytest.raises(NetworkError, match=f"^{taken}$"):
                served.call_all()
            for name in ("bob", "dealer"):
                with served.dial(name) as channel:
                    code, _ = Call(channel, "Session", served.about()).refusal()
                    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            losses.append(training.step(training.batch(owner)).item())
    assert losses == pytest.approx(losses_in_the_clear(served.hosts.parts), rel=0.2)
    assert len(served.entries("alice", "session")) == 1
    assert len(served.entries("alice", "ended")) == 1
    served.check()


# ---- Frames in a session -------------------------------------------------------------------------


class Line:
    """A session that the server has opened at one party alone.

    Args:
        planned: `Parties`; `name`: of the party.
    """

    def __init__(self, planned, name):
        self.parties, self.name, self._undo = planned, name, contextlib.ExitStack()
        channel = self._undo.enter_context(planned.dial(name))
        self.call = Call(channel, "Session", planned.about())
        self._undo.callback(self.call.cancel)
        self.call.next("ready")

    def __enter__(self):
        return self

    def __exit__(self, *failed):
        self._undo.close()
        self.parties.wait_until_free()

    def say(self, caller, *frames):
        """Have a party say this in the session, in a call of its own."""
        if caller == "server":
            for frame in frames:
                self.call.put(frame)
            return
        with self.parties.dial(self.name, caller) as channel:
            about = {"version": channels.VERSION, "session": self.parties.about()["session"]}
            call = Call(channel, "Say", about)
            for frame in (*frames, None):
                call.put(frame)
            call.answers.result()

    def error(self):
        """The next error that the server is told of."""
        _, line = self.call.next("error")
        return line

    def wait(self):
        """Until the party has come to a ready frame, the last that was said; it says no other."""
        session = self.parties.running[self.name]._session
        while "kind ready" not in (error := self.error()):
            assert session.over is None, error

    def key(self):
        """Have the crypto provider say the party's key."""
        self.say("dealer", message_frame("dealer", self.name, pack("key", key=os.urandom(32))))


SPOKEN = pack("public", id=0, shape=(1,), values=bytes(8))


@pytest.mark.parametrize(
    ("caller", "sender", "receiver"),
    [
        ("bob", "server", "alice"),
        ("bob", "dealer", "alice"),
        ("bob", "alice", "alice"),
        ("bob", "carol-data", "alice"),
        ("bob", "bob", "dealer"),
        ("bob", "bob", "server"),
        ("bob", "mallory", "alice"),
        ("dealer", "server", "alice"),
        ("dealer", "bob", "alice"),
        ("carol", "carol", "alice"),
        ("carol", "server-data", "alice"),
        ("server", "bob", "alice"),
        ("server", "dealer", "alice"),
        ("server", "alice-data", "alice"),
    ],
)
def test_nobody_speaks_as_another(served, caller, sender, receiver):
    with Line(served, "alice") as line:
        line.say(caller, message_frame(sender, receiver, SPOKEN))
        why = f"{caller} speaks as {sender!r} to {receiver!r}"
        assert line.error() == f"alice: {why}"
        ends = served.running["alice"]._session.post.ends
        assert not ends["alice"].has_key
    assert refusals(served, "alice") == [(caller, why)]
    served.check()


@pytest.mark.parametrize(
    ("caller", "frame", "why"),
    [
        ("server", channels.ready_frame(), "server sends a frame of kind ready"),
        ("bob", channels.error_frame("x"), "bob sends a frame of kind error"),
        ("bob", channels.END, "this is no frame"),
        ("dealer", channels.ready_frame(), "dealer sends a frame of kind ready"),
        ("server", b"", "this is no frame"),
        ("bob", random.Random(1).randbytes(100), "this is no frame"),
    ],
)
def test_a_frame_of_another_kind(served, caller, frame, why):
    with Line(served, "alice") as line:
        line.say(caller, frame)
        assert line.error() == f"alice: {why}"
    assert refusals(served, "alice") == [(caller, why)]
    served.check()


def test_what_the_server_says_moves_no_cursor(served, capfd):
    with Line(served, "alice") as line:
        line.say("server", channels.error_frame("over\nserving \x1b[2J" + "x" * 9000))
        line.error()
    (said,) = capfd.readouterr().err.splitlines()
    assert said.startswith("python -m smpc.hosts: alice: the session has ended: over\\nserving")
    assert said.isprintable()
    assert len(said) < 2000
    served.check()


@pytest.mark.parametrize(
    ("caller", "sender", "message", "words"),
    [
        ("bob", "bob", pack("key", key=bytes(32)), "worker may not say 'key' to worker"),
        ("bob", "bob", pack("deal", run=0), "worker may not say 'deal' to worker"),
        ("bob", "bob", SPOKEN, "worker may not say 'public' to worker"),
        ("carol", "carol-data", SPOKEN, "owner may not say 'public' to worker"),
        ("server", "server", pack("key", key=bytes(32)), "may not say 'key' to worker"),
        ("server", "server", pack("deal", run=0), "orchestrator may not say 'deal' to worker"),
        ("dealer", "dealer", SPOKEN, "crypto provider may not say 'public' to worker"),
        ("server", "server", pack("save", step=1), "save has the fields"),
        ("server", "server", b"\xc1", "this is no message"),
        ("server", "server", pack("public", id=-1, shape=(1,), values=b""), "its id is malformed"),
    ],
)
def test_nobody_says_what_is_not_for_its_role(served, caller, sender, message, words):
    with Line(served, "alice") as line:
        line.key()
        line.say(caller, message_frame(sender, "alice", message))
        assert words in line.error()
    ((who, why),) = refusals(served, "alice")
    assert who == caller
    assert words in why
    served.check()


def test_a_replayed_message_is_refused(served):
    with Line(served, "alice") as line:
        line.key()
        frame = message_frame("server", "alice", SPOKEN)
        line.say("server", frame, frame)
        assert line.error() == "alice: value 0 is there already, or was"
        key = message_frame("dealer", "alice", pack("key", key=bytes(32)))
        line.say("dealer", key)
        line.say("dealer", key)
        assert line.error() == "alice: alice has had this key already"
    assert [who for who, _ in refusals(served, "alice")] == ["server", "dealer"]
    served.check()


def recorded(served):
    """(caller, name, frame) of all that a session said to alice and to the crypto provider."""
    frames, lock = [], threading.Lock()
    came = party_module.Session.came

    def noting(self, host, frame):
        with lock:
            frames.append((host, self.party.name, frame))
        return came(self, host, frame)

    party_module.Session.came = noting
    try:
        with served.connected(0 if served.plan else None) as session:
            training = Training(session)
            for owner in STEPS:
                training.step(training.batch(owner))
            training.save(1)
    finally:
        party_module.Session.came = came
    assert {(host, name) for host, name, _ in frames} >= {
        *(("server", "alice"), ("bob", "alice"), ("dealer", "alice")),
        *(("server", "dealer"), ("alice", "dealer")),
    }
    return frames


def test_a_replayed_session_reveals_nothing(served):
    """All that was said to alice in a session, said to her again in another, by whom said it."""
    frames = recorded(served)
    before = len(served.entries("alice", "revealed"))
    with Line(served, "alice") as line:
        for host, name, frame in frames:
            if name == "alice" and host != "dealer":
                line.say(host, frame)
        line.key()  # another than that with which it was said
        line.say("server", channels.ready_frame())
        line.wait()
    assert len(served.entries("alice", "revealed")) == before == len(STEPS)
    served.check()


def test_a_frame_that_is_too_large(hosts, planned, monkeypatch):
    most = 1 << 20
    small = [("grpc.max_receive_message_length", most)]
    monkeypatch.setattr(channels, "OPTIONS", (*channels.OPTIONS[1:], *small))
    planned.serve()
    frame = message_frame("server", "alice", bytes(most))
    with planned.dial("alice") as channel:
        call = Call(channel, "Session", planned.about())
        call.next("ready")
        call.put(frame)
        with pytest.raises(grpc.RpcError) as refused:
            call.next("error")
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in refused.value.details()
        call.put(None)
    planned.wait_until_free()
    with Line(planned, "alice") as line, planned.dial("alice", "bob") as channel:
        call = Call(channel, "Say", planned.about())
        call.put(message_frame("bob", "alice", bytes(most)))
        assert call.refusal()[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert line.parties.is_up("alice")
    planned.check()


def test_what_a_value_may_measure(served):
    """A message of a few bytes has nobody draw or keep gigabytes."""
    with Line(served, "dealer") as line:
        shape = (1 << 20, 1 << 10)
        shared = pack("input", share=0, id=0, shape=shape, label=None)
        line.say("alice", message_frame("alice-data", "dealer", shared))
        known = pack("public", id=1, shape=shape, label="public 00")
        line.say("server", message_frame("server", "dealer", known))
        for _ in range(2):
            assert "shape is malformed or out of range" in line.error()
    served.check()


# ---- Under a plan, over channels -----------------------------------------------------------------


def run_refused(planned, why, run, **changes):
    """Check that `run(training)`, with these fields changed, ends with this line, and that nothing
    was revealed."""
    refused = pytest.raises(NetworkError, match=why)
    with refused, planned.connected() as session, altered(session, "run", **changes):
        run(Training(session))
    assert not planned.entries("alice", "revealed") + planned.entries("bob", "revealed")
    planned.check()


def step_on(owner, start=0):
    return lambda training: training.step(training.batch(owner, start, start + BATCH))


@pytest.mark.parametrize(
    ("run", "changes"),
    [
        (step_on("bob"), {}),
        (step_on("alice"), {"position": 1}),
        (step_on("alice"), {"position": 99}),
        (step_on("alice"), {"to": "bob-data"}),
        (lambda t: t.session.reveal(t.weights), {}),
    ],
)
def test_anything_but_the_plan_is_refused(served, run, changes):
    why = r"^(alice|bob|dealer): the plan has something else at position [0-9]+$"
    run_refused(served, why, run, **changes)


def test_a_run_without_a_position_is_refused(served):
    why = r"^(alice|bob|dealer): the plan has no such run$"
    run_refused(served, why, step_on("alice"), position=None)


def test_weights_that_are_not_the_seeds_are_refused(served):
    def run(training):
        training.weights = training.session.share(initial() * 2)
        training.step(training.batch("alice"))

    run_refused(served, r": the plan has something else at position 0$", run)


@pytest.mark.parametrize(
    ("parties", "start", "why"),
    [
        ("served", 1, "the plan is not on these train items"),
        ("any_program", 5, "no train items 5 to 8: there are 6"),
    ],
)
def test_items_that_an_owner_does_not_share(request, parties, start, why):
    parties = request.getfixturevalue(parties)
    line = f"^alice: alice-data cannot share items {start} to {start + BATCH}: {why}$"
    with pytest.raises(NetworkError, match=line), parties.connected() as session:
        step_on("alice", start)(Training(session))
    assert parties.entries("alice", "shared") == []
    parties.check()


def test_a_journal_that_cannot_be_written(served, capfd):
    """Nothing is revealed, and no session begins, until it can be."""
    journal = served.journals["bob"]
    note = journal.note

    def failing(what, **fields):
        if what == "revealed":
            journal.close()
        note(what, **fields)

    journal.note = failing
    unwritten = pytest.raises(NetworkError, match=r"^bob: .*journal\.jsonl is closed$")
    with unwritten, served.connected() as session:
        training = Training(session)
        training.step(training.batch("alice"))
    assert served.is_up("bob")
    with pytest.raises(NetworkError, match=r"^bob at .* refuses: .*journal\.jsonl is closed$"):
        served.call_all()
    served.wait_until_free()
    lines = capfd.readouterr().err.splitlines()
    assert f"python -m smpc.hosts: error: {journal.path} is closed" in lines
    assert all(line.startswith("python -m smpc.hosts: ") for line in lines)
    served.servers.pop("bob").stop(grace=None).wait()
    served.make("bob")
    served.servers["bob"] = served.running["bob"].serve(served.configuration.parties["bob"].address)
    assert not served.entries("bob", "revealed")
    served.check()


def test_a_journal_that_is_broken_is_told_to_the_server(served):
    served.check()
    path = served.journals["bob"].path
    with path.open("r+b") as file:
        file.write(b"x")
    with pytest.raises(NetworkError, match=r"^bob at .* refuses: .*is broken: line 1 is no entry$"):
        served.call_all()
    assert served.is_up("bob")
    served.wait_until_free()
    with path.open("r+b") as file:
        file.write(b"{")
    served.check()


# ---- In numbers ----------------------------------------------------------------------------------


def things():
    """How many threads, but those that servers keep, open files and parts of sessions are there."""
    gc.collect()
    kinds = (party_module.Session, party_module.Speaking)
    alive = sum(type(thing) in kinds for thing in gc.get_objects())
    threads = [t for t in threading.enumerate() if not t.name.startswith("ThreadPoolExecutor")]
    return len(threads), len(list(pathlib.Path("/proc/self/fd").iterdir())), alive


def settled(count, most):
    """Whether a count comes down to this: gRPC closes what is closed in its own time."""
    until = time.monotonic() + TIME_LIMIT
    while any(n > m for n, m in zip(count(), most, strict=True)) and time.monotonic() < until:
        time.sleep(0.05)
    return all(n <= m for n, m in zip(count(), most, strict=True))


@pytest.mark.thorough
def test_refused_calls_leave_nothing_behind(served):
    def refused(n):
        with served.dial("alice", "bob") as bob, served.dial("alice") as server:
            for _ in range(n):
                assert Call(bob, "Session", served.about()).refusal()[0] == DENIED
                assert Call(bob, "Say", served.about()).refusal()[0] == DENIED
                assert Call(server, "Session", served.about(plan="any")).refusal()[0] == DENIED

    refused(1)
    before = things()
    refused(2 * party_module.MOST_CALLS)
    assert settled(things, before)
    assert len(refusals(served, "alice")) == 3 * (1 + 2 * party_module.MOST_CALLS)
    served.check()


def test_sessions_leave_nothing_behind(served):
    for _ in range(2):
        served.check()
    before = things()
    for _ in range(5):
        served.check()
    assert settled(things, before)


def mutated(chance, frame):
    """A frame with some of its bytes changed, left out, or put in."""
    frame = bytearray(frame)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        k = chance.randrange(len(frame) + 1)
        match chance.randrange(4):
            case 0 if k < len(frame):
                frame[k] ^= 1 << chance.randrange(8)
            case 1:
                del frame[k : k + chance.choice((1, 2, 8, 1 << 20))]
            case 2:
                frame[k:k] = chance.randbytes(chance.choice((1, 2, 8)))
            case _:
                frame[k : k + 2] = chance.choice((b"\xc0", b"\xff\xff", b"\xdd", b"\xcf", b"\x80"))
    return bytes(frame)


@pytest.mark.parametrize(
    "which", ["served", pytest.param("any_program", marks=pytest.mark.thorough)]
)
def test_ten_thousand_random_and_mutated_messages(request, monkeypatch, which):
    """To alice and to the crypto provider, from all who speak to them; no session ends of it."""
    planned, n, chance = request.getfixturevalue(which), 5000, random.Random(11)
    said = [(host, name, frame) for host, name, frame in recorded(planned) if len(frame) < 3000]
    told = {name: len(planned.entries(name, "revealed")) for name in ("alice", "bob")}
    speaking = party_module.Speaking  # what they say to others who are not there is said to nobody
    monkeypatch.setattr(party_module, "Speaking", lambda *about: channels.new_queue())
    for name, share in (("alice", 3), ("dealer", 2)):
        with Line(planned, name) as line:
            session = planned.running[name]._session
            frames = [(host, frame) for host, to, frame in said if to == name]
            for k in range(share * n // 5):
                host, frame = chance.choice(frames)
                frame = chance.randbytes(k % 99) if k % 5 == 0 else mutated(chance, frame)
                session.came(host, frame) if host != "server" else line.say(host, frame)
            line.say("server", channels.ready_frame())
            line.wait()
        assert len(planned.entries(name, "refused")) > n // 4
        assert not planned.entries(name, "error")
    assert told == {name: len(planned.entries(name, "revealed")) for name in told}
    monkeypatch.setattr(party_module, "Speaking", speaking)
    planned.check()


# ---- The script ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--protocol", "snn"], "--protocol snn sends pickles, which hosts run: use semi2k"),
        (["--protocol", "fss"], "--protocol fss sends pickles, which hosts run: use semi2k"),
        (["--plain-twin"], "--plain-twin: the data is at its owners, and not here"),
        (["--transcript", "t", "--write-plan", "p"], "--write-plan: nothing is said that could be"),
        (["--n-workers", "3"], "--n-workers: on hosts they are those of the parties file"),
    ],
)
def test_the_script_refuses_what_hosts_do_not_do(capfd, options, words):
    with pytest.raises(SystemExit) as ended:
        train_encrypted.parse_arguments(["--parties", "parties.toml", *options])
    assert ended.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"train_encrypted.py: error: {words}")
