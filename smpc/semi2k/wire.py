"""What each party may say to each: the fields of every message, checked before any is used.

A message is a msgpack map, whose arrays are raw bytes, 64-bit little-endian words; nothing is
pickled. Its field `do` is the verb. `GRAMMAR` has, for each ordered pair of roles, the verbs that
may pass, and for each verb its fields. Who sent a message, the channel vouches for.
"""

import math
from typing import NamedTuple

import msgpack
import numpy as np

from smpc.semi2k.program import is_shape
from smpc.semi2k.randomness import KEY_BYTES, MOST_ATTEMPTS, MOST_RUNS

ORCHESTRATOR, PROVIDER, WORKER, OWNER = "orchestrator", "crypto provider", "worker", "owner"
MOST_VALUES = 1 << 25  # elements of a value that is shared, or kept


class Refused(Exception):
    """A message that its receiver does nothing with; what it says is a line for the sender."""


class Roster(NamedTuple):
    """The ids of the parties of a session.

    Attributes:
        orchestrator, provider: ids; workers, owners: tuples of ids, worker1 first.
    """

    orchestrator: str
    provider: str
    workers: tuple
    owners: tuple

    def role(self, party):
        """The role of a party, None for a stranger."""
        if party in self.workers:
            return WORKER
        if party in self.owners:
            return OWNER
        return {self.orchestrator: ORCHESTRATOR, self.provider: PROVIDER}.get(party)

    def others(self, worker):
        """The workers but this one."""
        return [other for other in self.workers if other != worker]


# ---- What a field may hold -----------------------------------------------------------------------


def number(x):
    """Of a run, a value or a step."""
    return type(x) is int and 0 <= x < MOST_RUNS


def address(x):
    """(run, attempt)."""
    return isinstance(x, tuple) and len(x) == 2 and number(x[0]) and attempt(x[1])


def attempt(x):
    """Of a run: a number that a stream's address has room for."""
    return number(x) and x < MOST_ATTEMPTS


def array(x):
    """Raw 64-bit words."""
    return isinstance(x, bytes) and len(x) % 8 == 0


def shape(x):
    """Of a value, such as one message can have."""
    return is_shape(x) and math.prod(x) <= MOST_VALUES


def key(x):
    """Of a stream."""
    return isinstance(x, bytes) and len(x) == KEY_BYTES


def name(x):
    """Of a program."""
    return isinstance(x, bytes) and len(x) == 16


def text(x):
    """A short string of letters, digits and hyphens, such as no path can be made of."""
    return isinstance(x, str) and len(x) <= 64 and x.replace("-", "").isalnum()


def label(x):
    """What a value is: a line of ASCII."""
    return isinstance(x, str) and len(x) <= 128 and x.isascii() and x.isprintable()


def every(check):
    """A tuple of what passes `check`."""
    return lambda x: isinstance(x, tuple) and all(map(check, x))


def maybe(check):
    """None, or what passes `check`."""
    return lambda x: x is None or check(x)


_RUN = {
    "run": number,
    "attempt": attempt,
    "program": name,
    "key": maybe(lambda x: isinstance(x, bytes)),
    "inputs": every(number),
    "outputs": every(number),
    "counts": every(address),  # the attempts that have come to an end since, and count
    "delete": every(number),
    "forget": every(name),
    "position": maybe(number),  # in the plan that the parties have agreed on, if there is one
    "to": maybe(text),  # the owner that gets what is revealed, if it is not the orchestrator
}
_INPUT = {"share": number, "id": number, "shape": shape, "label": maybe(label)}
_ABOUT = {"run_id": text, "step": number}
GRAMMAR = {
    (PROVIDER, WORKER): {
        "key": {"key": key},
        "deal": {"run": number, "attempt": attempt, "corrections": array},
        "deal_input": {"owner": text, "share": number, "corrections": array},
    },
    (PROVIDER, OWNER): {"key": {"key": key}},
    (OWNER, PROVIDER): {"input": _INPUT},
    (OWNER, WORKER): {"input": {**_INPUT, "delta": array}},
    (ORCHESTRATOR, OWNER): {
        "share": {
            "ids": every(number),
            "which": text,
            "start": number,
            "stop": number,
            "digits": number,
        },
    },
    (ORCHESTRATOR, PROVIDER): {
        "run": _RUN,
        "keys": {"owners": every(text)},  # that take part in the session
        "public": {"id": number, "shape": shape, "label": label},
    },
    (ORCHESTRATOR, WORKER): {
        "run": _RUN,
        "public": {"id": number, "shape": shape, "values": array},
        "save": {
            **_ABOUT,
            "ids": every(number),
            "counts": every(address),
            "keep": maybe(number),
        },
        "load": {**_ABOUT, "ids": every(number), "shapes": every(shape)},
    },
    (WORKER, WORKER): {
        "open": {"run": number, "attempt": attempt, "round": number, "words": array, "bits": array},
    },
    (WORKER, ORCHESTRATOR): {
        "result": {"run": number, "attempt": attempt, "revealed": array},
        "anew": {"run": number, "attempt": attempt},
        "done": {"step": number},
    },
    (WORKER, OWNER): {"revealed": {"run": number, "attempt": attempt, "revealed": array}},
    (OWNER, ORCHESTRATOR): {"read": {"run": number, "attempt": attempt}},
}


# ---- Messages ------------------------------------------------------------------------------------


def pack(do, **fields):
    """A message: names to numbers, strings, bytes, arrays' memory, and tuples of such."""
    return msgpack.packb({"do": do, **fields})


def unpack(message):
    """The fields of a message made by `pack`."""
    return msgpack.unpackb(message, use_list=False)


def read(message, sender, receiver):
    """(verb, fields) of a message, from a role to a role.

    Raises:
        Refused: the sender may not say this to the receiver, or not so.
    """
    try:
        fields = unpack(message)
        verb = fields.pop("do")
        expected = GRAMMAR.get((sender, receiver), {}).get(verb)
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.UnpackException) as error:
        raise Refused("this is no message") from error
    if expected is None:
        raise Refused(f"{sender or 'a stranger'} may not say {str(verb)[:20]!r} to {receiver}")
    if fields.keys() != expected.keys():
        raise Refused(f"{verb} has the fields {', '.join(expected) or 'none'}")
    for field, check in expected.items():
        if not check(fields[field]):
            raise Refused(f"{verb}: its {field} is malformed or out of range")
    return verb, fields


def raw(arrays):
    """uint64 arrays, one after the other, as one buffer without a copy where there is but one."""
    flat = [np.ravel(array) for array in arrays]
    joined = flat[0] if len(flat) == 1 else np.concatenate([np.empty(0, np.uint64), *flat])
    return np.ascontiguousarray(joined).view(np.uint8).data


def words(buffer):
    """The inverse: the uint64 array (n,) that `buffer` holds."""
    return np.frombuffer(buffer, dtype=np.uint64)


def split(flat, shapes):
    """Cut `flat` into pieces of these shapes.

    Raises:
        Refused: it has another size.
    """
    pieces, start = [], 0
    if flat.size != (size := sum(map(math.prod, shapes))):
        raise Refused(f"{flat.size} words came where {size} were asked for")
    for shape in shapes:
        size = math.prod(shape)
        pieces.append(flat[start : start + size].reshape(shape))
        start += size
    return pieces
