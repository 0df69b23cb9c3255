"""A party on its host: takes part in one session at a time, under its plan, and keeps its journal.

The server opens a session by a call to each party, one after the other, which lasts as long as the
session; in it go the server's messages, and what is said to the server. In a session each party
calls each other that it has something to say to. Whatever ends a session ends nothing else: the
party gives up what it held, and takes the next session with new keys.
"""

import contextlib
import os
import queue
import threading
from concurrent import futures

import grpc

from smpc import process
from smpc.audit.transcript import Recorder, TranscriptError
from smpc.files import FileError
from smpc.hosts import PROGRAM, certificates, channels
from smpc.hosts.channels import Post, frames, in_background
from smpc.hosts.configuration import owner_of
from smpc.hosts.journal import JournalError, printable
from smpc.hosts.plans import Consent
from smpc.semi2k import wire
from smpc.semi2k.network import NetworkError
from smpc.semi2k.owner import Owner, batch_of
from smpc.semi2k.provider import Provider
from smpc.semi2k.wire import Refused
from smpc.semi2k.worker import Worker

MOST_CALLS = 32  # at a time
TO_END = 20  # seconds for a session to be over in, when the party is stopped
GONE = "the server is gone"


class Session:
    """A party's part in one session.

    Args:
        id: of the session, which the server has drawn; `party`: a `Party`.
        recorder: an `audit.transcript.Recorder` of this session.
    Attributes:
        post: the `Post` of its ends; `received`: bytes of frames.
    """

    def __init__(self, id, party, recorder):
        self.id, self.party, self._recorder = id, party, recorder
        self.to_server, self._inbox = channels.new_queue(), queue.SimpleQueue()
        self._over, self._lock, self.received = None, threading.Lock(), 0
        self._cut_off = None  # why, if it was
        configuration = party.configuration
        self.post = Post(party.name, configuration.roster(), id)
        self.post.ends |= party.make_ends()
        self.post.out[configuration.server] = ToServer(self)
        for name, other in configuration.parties.items():
            if name not in (party.name, configuration.server):
                self.post.out[name] = Speaking(self, other)
        self._working = in_background(self._work)

    def came(self, host, frame):
        """A frame from a host; from any thread."""
        self._inbox.put((host, frame))

    def end(self, why, is_error=True):
        """End it, once."""
        with self._lock:
            if self._over is not None:
                return
            self._over = why
            self._cut_off = why if is_error else None
        if is_error:
            told = printable(why, channels.MOST_TEXT)  # the server may have said it
            process.tell(f"{PROGRAM}: {self.party.name}: the session has ended: {told}")
            self.to_server.put(channels.error_frame(f"{self.party.name}: {why}"))
        self.to_server.put(None)
        self._inbox.put(None)

    @property
    def over(self):
        """Why it is over, or None."""
        return self._over

    def wait(self):
        """Until nothing of it is done any more, or it takes too long."""
        self._working.join(TO_END)

    def _work(self):
        """Take what comes, one after the other, until the session is over."""
        try:
            self._recorder.start(self.post)
            while self._over is None:
                while self._inbox.empty() and self._guarded(self.party.name, self._deal_ahead):
                    pass
                item = self._inbox.get()
                if item is not None:
                    self._guarded(item[0], self._take, *item)
        finally:
            for out in self.post.out.values():
                out.put(None)
            try:
                self._save()
            finally:
                self.party.session_is_over(self)

    def _save(self):
        """Save what was recorded, if anything was to be."""
        try:
            self._recorder.save(self._cut_off)
        except (TranscriptError, MemoryError) as error:
            why = str(error) or "--transcript: it does not fit into memory"
            self.party.note("error", reason=why)
            process.tell(f"{PROGRAM}: error: {why}")

    def _deal_ahead(self):
        """Of the crypto provider: deal what comes next in the plan; whether there was anything."""
        provider = self.post.ends.get(self.post.roster.provider)
        messages = provider.ahead() if provider is not None else []
        self.post.send(self.post.roster.provider, messages)
        return bool(messages)

    def _take(self, host, frame):
        self.received += len(frame)
        kind, *fields = channels.read_frame(frame)
        if kind == "error" and host == self.party.configuration.server:
            self.end(*fields)
            return
        if kind != "message":
            raise ValueError(f"{host} sends a frame of kind {kind}")
        self.post.came(host, *fields)
        if self.post.roster.provider in self.post.ends:  # which says nothing to the server
            self.to_server.put(channels.tally_frame(self.post.counters))

    def _guarded(self, host, do, *args):
        """What `do` gives; or None, where it fails, which is told to the server and the journal.

        Args:
            host: from whom came what it is done for.
        """
        try:
            return do(*args)
        except (Refused, ValueError) as error:
            self.party.note("refused", sender=host, reason=str(error))
            self._say_error(error)
        except (FileError, OSError) as error:
            self.party.note("error", reason=str(error))
            self._say_error(error)
        except Exception as error:  # whatever it is, the server is told, and the party goes on
            self.party.note("error", reason=f"{type(error).__name__}: {error}")
            self.end(f"{type(error).__name__}: {error}")
        return None

    def _say_error(self, error):
        self.to_server.put(channels.error_frame(f"{self.party.name}: {error}"))


class ToServer:
    """Frames to the server, each after a tally of what has been said up to it.

    Args:
        session: a `Session`.
    """

    def __init__(self, session):
        self._session = session

    def put(self, frame):
        """As a queue's: a frame to send, or None, after which there are none."""
        if frame is not None:
            self._session.to_server.put(channels.tally_frame(self._session.post.counters))
        self._session.to_server.put(frame)


class Speaking:
    """Frames to another party, in a call that begins with the first of them.

    Args:
        session: a `Session`; `other`: the `configuration.Party` to call.
    """

    def __init__(self, session, other):
        self._session, self._other, self._frames = session, other, None

    def put(self, frame):
        """As a queue's: a frame to send, or None, after which there are none."""
        if self._frames is None:
            if frame is None:
                return
            self._frames = channels.new_queue()
            in_background(self._call)
        self._frames.put(frame)

    def _call(self):
        session, party = self._session, self._session.party
        with channels.dial(self._other, party.key, party.certificate) as channel:
            say = channel.stream_unary(f"/{channels.SERVICE}/Say")
            about = (("version", channels.VERSION), ("session", session.id))
            try:
                say(frames(self._frames), metadata=about)
            except grpc.RpcError as error:
                session.end(channels.reason(error, self._other))


class Party:
    """A party that serves.

    Args:
        name: its; `configuration`: a `configuration.Configuration`.
        home: its folder, a pathlib.Path, which has its key and certificate.
        part: a `parts.Part`, what it shares, or None.
        plan: a `plans.Plan`; None: it runs anything.
        journal: a `journal.Journal`.
        read: called with what is revealed to it, int64 (n,).
        transcripts: the folder for a transcript of each session, a pathlib.Path, or None.
    Raises:
        CertificateError: it has no key, or one that is not its own.
    """

    def __init__(self, name, configuration, home, part, plan, journal, read, transcripts=None):
        self.name, self.configuration, self._home = name, configuration, home
        self.key, self.certificate = certificates.load(home, configuration.parties[name])
        self._part, self._plan, self._journal, self._read = part, plan, journal, read
        self._transcripts, self._session, self._lock = transcripts, None, threading.Lock()

    @property
    def plan_digest(self):
        """What the server must name."""
        return self._plan.digest if self._plan else channels.ANY

    def note(self, what, **fields):
        """Write into the journal; where that fails, nothing is revealed any more, and this says
        why."""
        try:
            self._journal.note(what, **fields)
        except JournalError as error:
            process.tell(f"{PROGRAM}: error: {error}")

    def make_ends(self):
        """The ends on this host, for a session: id -> end."""
        roster, name = self.configuration.roster(), self.name
        ends = {}
        if name in roster.workers:
            ends[name] = Worker(name, roster)
            ends[name].folder = self._home / "checkpoint" / self.plan_digest[:16]
        elif name == roster.provider:
            ends[name] = Provider(name, roster)
        for end in ends.values():
            end.consent = Consent(self._plan, self._journal)
        if (owner := owner_of(name)) in roster.owners:
            ends[owner] = Owner(owner, roster, self._part and Given(self._part, self, self._plan))
            ends[owner].read = self._read
        return ends

    # ---- calls

    def serve(self, address):
        """Listen.

        Returns:
            the `grpc.Server`.
        Raises:
            NetworkError: it cannot listen there.
        """
        server = grpc.server(
            futures.ThreadPoolExecutor(MOST_CALLS),
            options=channels.OPTIONS,
            maximum_concurrent_rpcs=MOST_CALLS,
        )
        credentials = channels.server_credentials(self.configuration, self.key, self.certificate)
        handlers = {
            "Session": grpc.stream_stream_rpc_method_handler(self._open),
            "Say": grpc.stream_unary_rpc_method_handler(self._listen),
        }
        health = {"Check": grpc.unary_unary_rpc_method_handler(self._check)}
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(channels.SERVICE, handlers),
                grpc.method_handlers_generic_handler(channels.HEALTH, health),
            )
        )
        try:
            bound = server.add_secure_port(address, credentials)
        except RuntimeError:
            bound = 0
        if not bound:
            raise NetworkError(f"{self.name} cannot listen at {address}: another process does")
        server.start()
        return server

    def stop(self, why):
        """End the session there is, and wait until it is over."""
        with self._lock:
            session = self._session
        if session is not None:
            session.end(why)
            session.wait()

    def _caller(self, context):
        """Who calls; refuses a stranger, and another version."""
        party = channels.caller(context, self.configuration)
        if party is None:
            self._refuse(context, "a stranger", "the certificate that was shown is no party's")
        return party

    def _refuse(self, context, who, why, code=grpc.StatusCode.PERMISSION_DENIED):
        self.note("refused", sender=who, reason=why)
        context.abort(code, why)

    def _metadata(self, context, who):
        about = dict(context.invocation_metadata())
        if about.get("version") != channels.VERSION:
            why = f"{self.name} speaks version {channels.VERSION}, not {about.get('version')}"
            self._refuse(context, who, why)
        return about

    def _check(self, request, context):
        """grpc.health.v1.Health/Check: it is up."""
        self._caller(context)
        return channels.SERVING

    def _open(self, requests, context):
        """The server opens a session; what is said to it."""
        who = self._caller(context).name
        about = self._metadata(context, who)
        if who != self.configuration.server:
            self._refuse(context, who, f"{who} is not the server, and opens no session")
        if about.get("plan") != (mine := self.plan_digest):
            self._refuse(context, who, f"{self.name} serves under another plan ({mine[:16]})")
        if not wire.text(id := about.get("session", "")):
            self._refuse(context, who, "the number of a session is of letters, digits and hyphens")
        try:
            session = self._begin(id, who)
        except (JournalError, TranscriptError) as error:
            self._refuse(context, who, str(error), grpc.StatusCode.FAILED_PRECONDITION)
        if session is None:
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            self._refuse(context, who, f"{self.name} takes part in another session", code)
        in_background(self._hear_server, session, requests)
        yield channels.ready_frame()
        yield from frames(session.to_server)

    def _begin(self, id, server):
        """A new session, which the journal has before anything is done in it; None: there is one.

        Raises:
            JournalError: it can't be noted, or what was done in earlier ones can't be read.
            TranscriptError: it can't be recorded, as it is to be.
        """
        parties = {name: party.fingerprint for name, party in self.configuration.parties.items()}
        plan = self._plan and self.plan_digest
        with self._lock:
            if self._session is not None:
                return None
            recorder = self._recorder(id)
            self._journal.note("session", id=id, plan=plan, server=server, parties=parties)
            self._session = Session(id, self, recorder)
            return self._session

    def _recorder(self, id):
        """A recorder of the session of that number, which leaves an earlier one's file alone."""
        path = self._transcripts and self._transcripts / f"{id}-{self.name}.jsonl"
        if path and os.path.lexists(path):
            raise TranscriptError(f"--transcript {path}: is there already")
        return Recorder(path, {"protocol": "semi2k"})

    def _hear_server(self, session, requests):
        """Take the server's frames, until it ends the session in order, or is gone."""
        with contextlib.suppress(grpc.RpcError):  # what was cut off may also seem to be at its end
            for frame in requests:
                if frame == channels.END:
                    session.end("the server has ended it", is_error=False)
                    break
                session.came(self.configuration.server, frame)
        session.end(GONE)

    def _listen(self, requests, context):
        """Another party says something in the session that there is."""
        who = self._caller(context).name
        about = self._metadata(context, who)
        session = self._session
        if session is None or about.get("session") != session.id:
            self._refuse(context, who, f"{self.name} takes no part in that session")
        if who == self.configuration.server:
            self._refuse(context, who, "the server speaks in the session that it opens")
        try:
            for frame in requests:
                session.came(who, frame)
        except Exception:  # grpc raises nothing more exact when a call breaks off
            where = f"{who} at {self.configuration.parties[who].address}"
            session.end(f"{where} is gone: start it, and {channels.GO_ON}")
        return b""

    def session_is_over(self, session):
        """The next can begin."""
        with self._lock:
            self._session = None
        sent = {kind: sum(by.values()) for kind, by in session.post.counters.sent.items()}
        self.note("ended", reason=session.over, sent=sent, received=session.received)


class Given:
    """A part of which no batch is shared but those of the plan, each noted in a journal.

    Args:
        part: a `parts.Part`; `party`: the `Party` whose it is.
        plan: a `plans.Plan`; None: all may be shared.
    """

    def __init__(self, part, party, plan):
        self._part, self._party, self._plan = part, party, plan

    def batch(self, which, start, stop, digits):
        """As `Part.batch`; also raises ValueError if the plan is not on it."""
        asked = batch_of(owner_of(self._party.name), which, start, stop)
        if self._plan and asked not in self._plan.batches:
            raise ValueError(f"the plan is not on these {which} items")
        batch = self._part.batch(which, start, stop, digits)
        about = {"names": list(batch), "to": self._party.configuration.workers}
        self._party.note("shared", which=which, start=start, stop=stop, **about)
        return batch
