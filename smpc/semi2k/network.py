"""The simulation's channels: carry messages between the parties' ends, and count them.

All parties live in one process; every message passes `Network.carry` as bytes, once, whoever sends
it, and the network vouches for who that is. It neither reads nor keeps any.
"""

import copy
from collections import deque
from dataclasses import dataclass, field

from smpc.files import FileError
from smpc.semi2k.wire import ORCHESTRATOR, OWNER, PROVIDER, WORKER

KINDS = {
    (WORKER, WORKER): "opening",
    (ORCHESTRATOR, WORKER): "running",
    (WORKER, ORCHESTRATOR): "running",
    (ORCHESTRATOR, PROVIDER): "dealing",
    (PROVIDER, WORKER): "dealing",
    (PROVIDER, OWNER): "sharing",
    (OWNER, PROVIDER): "sharing",
    (OWNER, WORKER): "sharing",
    (ORCHESTRATOR, OWNER): "sharing",
    (WORKER, OWNER): "running",
    (OWNER, ORCHESTRATOR): "running",
}


class NetworkError(FileError):
    """A party is gone, refuses or cannot be reached; the message says who, where, what to do."""

    status = 1


@dataclass
class Counters:
    """What has been said so far, counted at every sender once, by kind of message: "opening" for
    what workers say to each other, "running" for what the orchestrator asks of them and they
    answer, "dealing" for what the crypto provider is asked for and sends the workers, "sharing" for
    what is said to and by owners of data.

    Attributes:
        messages: by kind.
        sent: bytes, by kind and by the id of the party that sent them.
        rounds: of openings; in each every worker sends one message to every other.
        opened: bytes of the openings of all workers, of each what it sends to one other.
        dealt: bytes that the crypto provider sent to workers.
        runs: of programs; `anew`: how many times one of these was made anew.
        told: an upper bound on how far what the crypto provider sees of all runs can be from what
            it would see if nothing depended on one value within its promise: see docs/protocol.md.
        seconds: wall time, "online" and "dealing".
    """

    messages: dict = field(default_factory=dict)
    sent: dict = field(default_factory=dict)
    rounds: int = 0
    opened: int = 0
    dealt: int = 0
    runs: int = 0
    anew: int = 0
    told: float = 0.0
    seconds: dict = field(default_factory=lambda: {"online": 0.0, "dealing": 0.0})

    def since(self, earlier):
        """What has come since `earlier`, a copy of these counters, as a dict."""
        return _difference(self.__dict__, earlier.__dict__)

    def copy(self):
        """As they stand now."""
        return copy.deepcopy(self)


def _difference(now, before):
    return {
        name: _difference(value, before.get(name, {}))
        if isinstance(value, dict)
        else value - before.get(name, 0)
        for name, value in now.items()
    }


class Network:
    """The channels between the parties of one session.

    Args:
        roster: a `wire.Roster`.
    Attributes:
        ends: id of a party -> its end, which has `receive(sender, message)`.
        counters: `Counters`.
        session: its id; None in the simulation.
    """

    session = None

    def __init__(self, roster):
        self.roster, self.ends, self.counters = roster, {}, Counters()

    def send(self, sender, messages):
        """Deliver (receiver, message) pairs from a party, and all that come of them, in order."""
        queue = deque((sender, receiver, message) for receiver, message in messages)
        while queue:
            sender, receiver, message = queue.popleft()
            answers = self.carry(sender, receiver, message)
            queue.extend((receiver, other, answer) for other, answer in answers)

    def wait(self, done):
        """All that was sent has come already."""

    def counted(self):
        """What all parties have said so far: `Counters` that stay as they are."""
        return self.counters.copy()

    def carry(self, sender, receiver, message):
        """Pass on one message, whoever sends it; what the receiver says to it."""
        return self._pass_on(sender, receiver, message)

    def _pass_on(self, sender, receiver, message):
        self.count(sender, receiver, len(message))
        return self.ends[receiver].receive(sender, message)

    def count(self, sender, receiver, size):
        roster, counters = self.roster, self.counters
        kind = KINDS[roster.role(sender), roster.role(receiver)]
        counters.messages[kind] = counters.messages.get(kind, 0) + 1
        sent = counters.sent.setdefault(kind, {})
        sent[sender] = sent.get(sender, 0) + size
        counters.dealt += size if kind == "dealing" and sender == roster.provider else 0
        if kind == "opening" and receiver == roster.others(sender)[0]:
            counters.opened += size
            counters.rounds += sender == roster.workers[0]
