"""The messages that are to be said, and whether they were: field by field, and in their order."""

import msgpack

# What tells a message from others of its verb, between the same two.
IDENTITY = ("do", "run", "attempt", "round", "owner", "share", "id", "step")
CHECKS = {  # what a field that is wrong is found by
    "corrections": "dealing",
    "words": "openings",
    "bits": "openings",
    "revealed": "results",
    "delta": "openings",
    "key": "keys",
}


class Expected:
    """What all but the orchestrator are to say.

    Args:
        roster: the `wire.Roster`; views: party -> its `View`.
        find: called with (check, line) for whatever is wrong.
    """

    def __init__(self, roster, views, find):
        self._roster, self._views, self._find = roster, views, find
        self._messages = {}

    def say(self, sender, receiver, do, **fields):
        """Note a message that is to be said."""
        self._messages.setdefault((sender, receiver), []).append({"do": do, **fields})

    def compare(self, to_the_end=True):
        """Hold what was said, as each end has it, against it.

        Args:
            to_the_end: whether that is all; else more may be said.
        """
        pairs = {
            (entry.sender, entry.receiver)
            for view in self._views.values()
            for entry in view.entries
            if entry.kind == "message" and entry.sender != self._roster.orchestrator
        }
        for pair in sorted(pairs | self._messages.keys()):
            for view in {party for party in pair if party in self._views}:
                self._compare(*pair, self._views[view], to_the_end)

    def _compare(self, sender, receiver, view, to_the_end):
        said = self._messages.get((sender, receiver), [])
        ends, order, expected = f"{sender} to {receiver}", [], {}
        for fields in said:
            expected.setdefault(_which(fields), []).append(fields)
        for entry, fields in view.messages(sender=sender, receiver=receiver):
            which = _which(fields)
            if not expected.get(which):
                if to_the_end:
                    self._find("messages", f"{ends}: {_named(which)} is not to be said")
                continue
            order.append(which)
            for check, line in differences(fields, expected[which].pop(0), entry.bytes):
                self._find(check, f"{ends}, {_named(which)}: {line}")
        for which in [which for which, missing in expected.items() if missing]:
            self._find("messages", f"{ends}: {_named(which)} is missing")
        # (the provider answers owners and orchestrator, as each comes)
        heard = set(order)
        if sender != self._roster.provider and order != [
            which for which in map(_which, said) if which in heard
        ]:
            self._find("messages", f"{ends}: not in the order in which it is to be said")


def _which(fields):
    return tuple((name, fields[name]) for name in IDENTITY if name in fields)


def _named(which):
    (_, verb), *about = which
    return " ".join([str(verb), *(f"{name} {value}" for name, value in about)])


def differences(fields, expected, size):
    """(check, line) for each way in which a message is not what it is to be; size: of its bytes."""
    if list(fields) != list(expected):
        yield "messages", f"its fields are {', '.join(fields)}, not {', '.join(expected)}"
    for name, value in expected.items():
        found = fields.get(name)
        if type(found) is not type(value) or found != value:
            same = type(found) is type(value) is bytes and len(found) == len(value)
            what = "not what it is to be" if same else "not of the length or the type it is to be"
            yield CHECKS.get(name, "messages"), f"its {name} is {what}"
    if size != len(msgpack.packb(fields)):
        yield "messages", f"it has {size} bytes, which hold more than its fields"
