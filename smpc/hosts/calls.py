"""The server's side of a session on hosts: a call to each party, and what comes back in it."""

import queue
import time

import grpc

from smpc.hosts import channels
from smpc.hosts.channels import Post, frames, in_background
from smpc.semi2k.network import NetworkError


class Calls(Post):
    """The network of the server, in the place of the simulation's.

    Args:
        configuration: a `configuration.Configuration`.
        key, certificate: the server's, PEM.
        about: metadata of the session: its id, and the digest of its plan.
        time_limit: seconds that anybody may take to answer.
    Raises:
        NetworkError: a party cannot be reached within the time limit, or refuses.
    """

    def __init__(self, configuration, key, certificate, about, time_limit):
        super().__init__(configuration.server, configuration.roster(), about["session"])
        self.configuration, self.time_limit = configuration, time_limit
        self._inbox, self._calls, self._channels, self._tallies = queue.SimpleQueue(), {}, [], {}
        self._hearing = []
        metadata = (("version", channels.VERSION), *about.items())
        deadline = time.monotonic() + time_limit
        try:
            for name, party in configuration.parties.items():
                if name != self.name:
                    self._call(party, key, certificate, metadata, deadline)
        except BaseException:
            self.hang_up()
            raise

    def _call(self, party, key, certificate, metadata, deadline):
        """Open the session at a party; one that is started late is waited for."""
        channel = channels.dial(party, key, certificate)
        self._channels.append(channel)
        try:
            ready = grpc.channel_ready_future(channel)
            ready.result(timeout=max(0.1, deadline - time.monotonic()))
        except grpc.FutureTimeoutError:
            check = channel.unary_unary(f"/{channels.HEALTH}/Check")
            try:  # only a call says what is wrong
                check(b"", timeout=1)
            except grpc.RpcError as error:
                raise NetworkError(channels.reason(error, party)) from error
        out = self.out[party.name] = channels.new_queue()
        session = channel.stream_stream(f"/{channels.SERVICE}/Session")
        self._calls[party.name] = call = session(frames(out), metadata=metadata)
        self._hearing.append(in_background(self._hear, party, call))
        self.wait(lambda: party.name in self._tallies)

    def _hear(self, party, call):
        try:
            for frame in call:
                self._inbox.put((party, frame))
            self._inbox.put((party, None))
        except grpc.RpcError as error:
            self._inbox.put((party, error))

    def wait(self, done):
        """Take what comes until `done()`.

        Raises:
            NetworkError: a party says that something went wrong, is gone, or nothing has come for
                as long as anybody may take. The others are told, and the session is over.
        """
        try:
            self._wait(done)
        except NetworkError as error:
            for name in self._calls:
                self.out[name].put(channels.error_frame(str(error)))
            self.end(patience=2)
            raise

    def _wait(self, done):
        heard = set()
        while not done():
            try:
                party, frame = self._inbox.get(timeout=self.time_limit)
            except queue.Empty:
                silent = ", ".join(sorted(self._calls.keys() - heard)) or "anybody"
                raise NetworkError(
                    f"no answer from {silent} within {self.time_limit:g} seconds: see the journals "
                    f"there, and {channels.GO_ON}"
                ) from None
            heard.add(party.name)
            self._take(party, frame)

    def _take(self, party, frame):
        if frame is None:
            raise NetworkError(f"{party.name} at {party.address} has ended the session")
        if isinstance(frame, grpc.RpcError):
            raise NetworkError(channels.reason(frame, party))
        kind, *fields = channels.read_frame(frame)
        match kind:
            case "message":
                self.came(party.name, *fields)
            case "error":
                raise NetworkError(*fields)
            case "tally":
                self._tallies[party.name] = fields
            case "ready":
                self._tallies[party.name] = {}, {}, 0, 0, 0

    def counted(self):
        """What all parties have said so far, as far as they have told."""
        counters = self.counters.copy()
        for messages, sent, rounds, opened, dealt in self._tallies.values():
            for kind, n in messages.items():
                counters.messages[kind] = counters.messages.get(kind, 0) + n
            for kind, by in sent.items():
                counters.sent[kind] = counters.sent.get(kind, {}) | by
            counters.rounds += rounds
            counters.opened += opened
            counters.dealt += dealt
        return counters

    def end(self, patience=None):
        """End the session in order: each party is told, and says that it has ended it, within so
        many seconds, by default the time limit."""
        for name in self._calls:
            self.out[name].put(channels.END)
            self.out[name].put(None)
        deadline = time.monotonic() + (patience or self.time_limit)
        for thread in self._hearing:
            thread.join(max(0, deadline - time.monotonic()))
        self.hang_up()

    def hang_up(self):
        """End all calls at once."""
        for call in self._calls.values():
            call.cancel()
        for channel in self._channels:
            channel.close()
