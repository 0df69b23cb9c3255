"""Channels between hosts: gRPC over mutual TLS 1.3, raw bytes both ways.

Who is at the other end is decided by the SHA-256 of the certificate that it showed, looked up in
the shared file, and by nothing in the certificate: a server must be given all parties' certificates
as roots, and a certificate that names alice but was issued by bob's key passes that. A caller
trusts exactly the one certificate of the party that it calls.

`Post` takes the place of the simulation's `Network`: the same ends run on it, their messages go to
the ends on this host, or as frames to another.
"""

import hashlib
import queue
import ssl
import threading

import grpc
import msgpack

from smpc.hosts.configuration import host_of
from smpc.semi2k.network import Network

SERVICE, VERSION = "semi2k.Party", "1"
ANY = "any"  # in the place of a plan's digest, where none binds
HEALTH = "grpc.health.v1.Health"
SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}, as protobuf has it
MOST_BYTES = 1 << 28  # of a frame
MOST_TEXT = 1000  # characters of an error
GO_ON = "run the script again, a training with --resume"
END = msgpack.packb(("end",))  # the server's last frame; where none came, it was cut off
ALIVE = 10_000  # milliseconds: a host that shows no sign of life for twice as long is gone
OPTIONS = (
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.max_send_message_length", MOST_BYTES),
    ("grpc.keepalive_time_ms", ALIVE),
    ("grpc.keepalive_timeout_ms", ALIVE),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", ALIVE // 2),
    ("grpc.so_reuseport", 0),  # a second party at the same address is an error
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


# ---- Frames --------------------------------------------------------------------------------------


def message_frame(sender, receiver, message):
    """A frame that carries a message from an end on this host to one on another."""
    return msgpack.packb(("message", sender, receiver, message))


def error_frame(text):
    """A frame that says why a message was of no use; of a long text, the beginning."""
    return msgpack.packb(("error", text[:MOST_TEXT]))


def ready_frame():
    """A frame that says that a party takes part in a session."""
    return msgpack.packb(("ready",))


def tally_frame(counters):
    """A frame with what a party has sent so far, a `semi2k.network.Counters`."""
    fields = (
        *(counters.messages, counters.sent, counters.rounds, counters.opened),
        counters.dealt,
    )
    return msgpack.packb(("tally", *fields))


_FIELDS = {
    "message": (str, str, bytes),
    "error": (str,),
    "ready": (),
    "tally": (dict, dict, int, int, int),
}


def read_frame(frame):
    """(kind, *fields) of a frame.

    Raises:
        ValueError: it is none.
    """
    try:
        kind, *fields = msgpack.unpackb(frame, use_list=False)
        fits = [isinstance(x, kind_) for x, kind_ in zip(fields, _FIELDS[kind], strict=True)]
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise ValueError("this is no frame") from error
    if not all(fits):
        raise ValueError(f"a {kind} of other fields")
    return kind, *fields


# ---- Who is there --------------------------------------------------------------------------------


def caller(context, configuration):
    """The `Party` that made a call, over TLS 1.3, or None: whose certificate was shown.

    Args:
        context: a `grpc.ServicerContext`.
    """
    about = context.auth_context()
    shown = about.get("x509_pem_cert", [])
    if len(shown) != 1 or about.get("ssl_tls_version") != [b"TLSv1.3"]:
        return None
    der = ssl.PEM_cert_to_DER_cert(shown[0].decode())
    return configuration.by_fingerprint(hashlib.sha256(der).hexdigest())


def server_credentials(configuration, key, certificate):
    """Of a party that listens: who calls must show the certificate of a party."""
    roots = b"".join(party.certificate for party in configuration.parties.values())
    return grpc.ssl_server_credentials([(key, certificate)], roots, require_client_auth=True)


def dial(party, key, certificate):
    """A `grpc.Channel` to a party: this host shows `certificate`, and trusts only the party's."""
    credentials = grpc.ssl_channel_credentials(party.certificate, key, certificate)
    target = ("grpc.ssl_target_name_override", party.name)
    return grpc.secure_channel(party.address, credentials, options=(*OPTIONS, target))


def reason(error, party):
    """One line for the user on why a call to a party failed.

    Args:
        error: a `grpc.RpcError` of that call.
    """
    where = f"{party.name} at {party.address}"
    code, details = error.code(), " ".join((error.details() or "").split())
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        if any(word in details for word in ("handshake", "ertificate", "SSL", "ssl")):
            return (f"{where} does not take this host for who it is, or is not {party.name}: "
                    "give all hosts the same parties file")  # fmt: skip
        return f"{where} is gone, or cannot be reached: start it, and {GO_ON}"
    if code == grpc.StatusCode.CANCELLED:
        return f"{where} has ended the session"
    return f"{where} refuses: {details or code.name.lower()}"


# ---- Messages ------------------------------------------------------------------------------------


class Post(Network):
    """The network of the ends on this host: carries their messages, and counts what leaves.

    Args:
        name: of this host; `roster`: of all ends; `session`: its id.
    Attributes:
        ends: id of an end on this host -> it.
        out: name of another host -> a `queue.SimpleQueue` of frames to it.
    """

    def __init__(self, name, roster, session):
        super().__init__(roster)
        self.name, self.session, self.out = name, session, {}
        self._held = {}  # end that has no key yet -> what came for it, in order

    def _pass_on(self, sender, receiver, message):
        """Hand a message over to an end that is here, or send it to its host."""
        if receiver in self.ends:
            return self.ends[receiver].receive(sender, message)
        self.count(sender, receiver, len(message))
        self.out[host_of(receiver)].put(message_frame(sender, receiver, message))
        return []

    def came(self, host, sender, receiver, message):
        """Take a message from another host, and send what comes of it.

        Raises:
            ValueError: no such end is there, or here; or what the end raises.
        """
        if self.roster.role(sender) is None or host_of(sender) != host or receiver not in self.ends:
            raise ValueError(f"{host} speaks as {sender!r} to {receiver!r}")
        if sender != self.roster.provider and not getattr(self.ends[receiver], "has_key", True):
            self._held.setdefault(receiver, []).append((sender, message))
            return
        self.send(sender, [(receiver, message)])
        for held_from, held in self._held.pop(receiver, ()):
            self.send(held_from, [(receiver, held)])


def frames(out):
    """What is put into a `queue.SimpleQueue`, until that is None."""
    while (frame := out.get()) is not None:
        yield frame


def new_queue():
    """For frames to another host, from any thread."""
    return queue.SimpleQueue()


def in_background(function, *args):
    """Start a thread that ends with the process."""
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread
