"""Carries the messages between the parties of a session, and counts them.

In the simulation all parties live in one process; every message passes `Network.request` as bytes,
whoever sends it.
"""

import copy
from dataclasses import dataclass, field


@dataclass
class Counters:
    """What has been said so far, by kind of message: "online" while a program runs, "dealing" for
    what the crypto provider is asked for and sends, "sharing" for keys and shares of inputs,
    "checkpoint" for what workers are asked to write and read.

    Attributes:
        messages: requests from one party to another, by kind.
        sent: bytes of requests and replies, by kind and by the id of the party that sent them.
        rounds: of openings; each is one message to each worker and its reply.
        opened: bytes of masked values that both workers sent to have opened.
        revealed: bytes of shares that both workers sent to have a result revealed.
        seconds: wall time, "online" and "dealing".
    """

    messages: dict = field(default_factory=dict)
    sent: dict = field(default_factory=dict)
    rounds: int = 0
    opened: int = 0
    revealed: int = 0
    seconds: dict = field(default_factory=lambda: {"online": 0.0, "dealing": 0.0})

    def since(self, earlier):
        """What has come since `earlier`, a deep copy of these counters, as a dict."""
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

    Attributes:
        name: of the session; each party's end is `party.crypto_store.semi2k[name]`.
        counters: `Counters`.
    """

    def __init__(self, name):
        self.name, self.counters = name, Counters()

    def request(self, sender, receiver, message, kind):
        """Send `message`, bytes, from a syft worker to another's end; its reply, bytes or None."""
        reply = receiver.crypto_store.semi2k[self.name].receive(message)
        counters = self.counters
        counters.messages[kind] = counters.messages.get(kind, 0) + 1
        sent = counters.sent.setdefault(kind, {})
        sent[sender.id] = sent.get(sender.id, 0) + len(message)
        if reply is not None:
            sent[receiver.id] = sent.get(receiver.id, 0) + len(reply)
        return reply
