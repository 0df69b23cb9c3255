"""What the ends say when they refuse something: the same, whatever the secrets are.

Errors are sent back, noted and printed. So each end of a session that holds secrets is made to
refuse whatever it can be made to refuse: of each verb, from each pair of roles, a wrong sender, a
missing, another and a malformed field, in which there is a share; what was said before, once more;
and what is well-formed and cannot be done. In sessions with other secrets, and other keys, all of
it is said again. An error that holds anything of a share, or of a secret, differs.
"""

import contextlib
import itertools
import pathlib
import shutil
import tempfile
from unittest import mock

import msgpack
import numpy as np

from smpc.audit.transcript import ORCHESTRATOR, OWNERS, PROVIDER, WORKERS
from smpc.semi2k import wire
from smpc.semi2k.program import name_of, pack_program
from smpc.semi2k.session import Session
from smpc.semi2k.wire import pack, unpack

SESSIONS = 8  # so that an error which tells one bit is missed once in 2^7 at the most
SIZE = 3  # of each value
STRANGER = "a stranger"
FIRST, LAST = WORKERS
PARTIES = (ORCHESTRATOR, PROVIDER, *WORKERS, OWNERS, STRANGER)
LATER = 1000  # than all runs, values and shares of the session
ABOUT = {"run_id": "held", "step": 1}  # the checkpoint
NUMBERS = ("run", "attempt", "round", "share", "id", "step", "start", "stop", "digits")
TUPLES = ("inputs", "outputs", "counts", "delete", "forget", "ids", "shapes", "owners")
ARRAYS = ("corrections", "delta", "values", "words", "bits", "revealed")
# What passes for a field, by its name; there is a share in arrays.
WELL_FORMED = {
    **dict.fromkeys(NUMBERS, 1),
    **dict.fromkeys(TUPLES, ()),
    **dict.fromkeys(("position", "to", "keep")),
    "program": bytes(16),
    "key": bytes(32),
    "shape": (SIZE,),
    "label": "public",
    "run_id": "held",
    "which": "train",
    "owner": OWNERS,
}
# Instructions on an input of SIZE numbers that an end cannot carry out.
IMPOSSIBLE = (
    ("no such", (1,), (0,), ()),
    ("add", (1,), (0, 7), ()),
    ("scale", (1,), (0,), ("three",)),
    ("reshape", (1,), (0,), ((2,),)),
    ("index", (1,), (0,), ((7,),)),
    ("sum", (1,), (0,), ((4,), False)),
    ("mul_public", (1,), (0,), ((2,), bytes(16))),
    ("product", (1,), (0, 0), ("pow",)),
    ("select", (1,), (0, 0), ((SIZE,),)),
    ("mask", (1,), (0,), ((4,), False)),
    ("truncate", (1, 2), (0,), ((SIZE,), 0, 41, True)),
    ("reveal", (), (0,), ((5,),)),
    ("noise", (1,), (0,), ((SIZE,), 2**30, (), 0)),
)
OPENS = (("unmask", (1,), (0,), ()), ("truncate_exactly", (2, 3), (1,), ((SIZE,), 10)))
REVEALS = (("unmask", (1,), (0,), ()), ("reveal", (), (1,), ((SIZE,),)))


def found_in():
    """Where what an end says tells of a secret: lines for the user."""
    rng = np.random.default_rng()
    secrets = rng.integers(-(2**20), 2**20, (2, 2, SIZE))
    texts = []
    with tempfile.TemporaryDirectory() as folder:
        kept = pathlib.Path(folder) / "kept"
        for number in range(SESSIONS):
            texts.append(refusals(kept, secrets[number % 2]))
            shutil.rmtree(kept)
    found = []
    for what, text in texts[0].items():
        others = {of_session[what] for of_session in texts} - {text}
        found += [f"{what}: {text!r}, and under another secret {other!r}" for other in others][:1]
    return found


def refusals(folder, values):
    """Have the ends of a session refuse what they can.

    Args:
        folder: for checkpoints, a pathlib.Path; `values`: the secrets, int64 (2, SIZE).
    Returns:
        what was said -> the error, None where there was none.
    """
    held, texts = Held(folder, values), {}
    for what, provoke in itertools.chain(
        *(malformed(held), replayed(held), wrong_answers(held), wrong_values(held)),
        *(wrong_checkpoints(held), wrong_runs(held)),
    ):
        if what in texts:
            raise RuntimeError(f"two provocations are called {what}")
        try:
            provoke()
            texts[what] = None
        except Exception as error:
            texts[what] = f"{type(error).__name__}: {error}"
    return texts


class Items:
    """An owner's data."""

    def batch(self, which, start, stop, digits):
        """As in `Owner`."""
        if stop > LATER:
            raise ValueError(f"there are {LATER}")
        return {"numbers": np.arange(start, stop)}


class Held:
    """A session that holds secrets, in which all but `anew` has been said.

    Attributes:
        session: the session; `ends`: its ends, by id; `nodes`: of what is to stay stored.
        said: (sender, receiver, verb) -> the last such message.
        x: the number of a secret value; `share`: the first worker's share of it, uint64 (SIZE,).
    """

    def __init__(self, folder, values):
        self.session = session = Session.simulated(ORCHESTRATOR, WORKERS, PROVIDER)
        self.ends, self.said = session.network.ends, {}
        session.keep_shares_in(folder)
        session.exact = True  # so that no run is made anew, by chance
        with self.carried(self._note):
            session._make_keys()
            self.nodes = x, y = [session.share(value) for value in values]
            session.want(product := session.graph.times("mul", session.graph.above_zero(x), y))
            session.reveal(session.graph.summed(product, (0,), False))
            session.save([product], keep=None, **ABOUT)
            self.nodes += session.load([product.shape], **ABOUT)
            self._on_hosts()
        self.x, self.share = x.id, self.ends[FIRST].share(x.id)

    def _note(self, sender, receiver, message, carry):
        self.said[sender, receiver, unpack(message)["do"]] = message
        return carry(sender, receiver, message)

    def _on_hosts(self):
        """What is said only where owners have an end on a host of their own."""
        session, owner = self.session, self.ends[OWNERS]
        owner.part, owner.read = Items(), lambda read: None
        session.owner = None
        public = session.share(np.array([2, 3]))
        session.owner = OWNERS
        which = {"which": "train", "start": 4, "stop": 6, "digits": 0}
        (items,) = session.ask_to_share(OWNERS, [(2,)], **which)
        session.reveal_to(session.graph.times("mul", public, items), OWNERS)
        self.nodes += [public, items]

    @contextlib.contextmanager
    def carried(self, door):
        """Meanwhile each message passes `door`, with what carries it."""
        carry = self.session.network.carry
        self.session.network.carry = lambda *message: door(*message, carry)
        try:
            yield
        finally:
            del self.session.network.carry

    def say(self, sender, receiver, *verb, **fields):
        """What has an end hear this when it is called."""
        message = pack(*verb, **fields) if verb else fields["message"]
        return lambda: self.ends[receiver].receive(sender, message)

    def well_formed(self, fields):
        """A message's fields by their names, each well-formed."""
        samples = WELL_FORMED | dict.fromkeys(ARRAYS, self.share.tobytes())
        return {name: samples[name] for name in fields}


# ---- What there is to refuse: (what it is, what has it said when it is called) pairs -------------


def malformed(held):
    """Of each verb, from each role to each: a wrong sender; wrong fields, which hold a share."""
    share = int(held.share[0]) | 1 << 63
    wrong = {"number": float(share), "tuple": (share,), "text": f"{share}" * 10}
    role = held.session.roster.role
    for roles, verbs in wire.GRAMMAR.items():
        receiver = next(party for party in reversed(PARTIES[:-1]) if role(party) == roles[1])
        sender = next(p for p in PARTIES if role(p) == roles[0] and p != receiver)
        ends = sender, receiver
        about = f"from {sender} to {receiver}"
        yield f"no message {about}", held.say(*ends, message=held.share.tobytes())
        yield f"no verb {about}", held.say(*ends, "tell", share=share)
        for verb, checks in verbs.items():
            fields = held.well_formed(checks)
            for party in PARTIES:
                if party != receiver and verb not in wire.GRAMMAR.get((role(party), roles[1]), {}):
                    said = held.say(party, receiver, verb, **fields)
                    yield f"{verb} {about}, said by {party}", said
            yield f"{verb} {about} with more", held.say(*ends, verb, **fields, more=share)
            for name in fields:
                less = {n: value for n, value in fields.items() if n != name}
                yield f"{verb} {about} without {name}", held.say(*ends, verb, **less)
                for kind, value in wrong.items():
                    said = held.say(*ends, verb, **fields | {name: value})
                    yield f"{verb} {about}, its {name} a {kind}", said


def replayed(held):
    """Whatever was said, once more, but for what may be said again."""
    for (sender, receiver, verb), message in held.said.items():
        if verb not in ("keys", "save"):
            yield (
                f"{verb} from {sender} to {receiver} again",
                held.say(sender, receiver, message=message),
            )


def wrong_answers(held):
    """To the orchestrator: when nothing is asked, when something else is, of a wrong size; none."""
    session = held.session
    revealed = held.share.tobytes()
    answers = {
        "result": {"run": LATER, "attempt": 0, "revealed": revealed},
        "done": {"step": LATER},
    }
    answers["anew"] = {"run": LATER, "attempt": 0}
    for verb, fields in answers.items():
        yield f"{verb} that nobody asked for", held.say(FIRST, ORCHESTRATOR, verb, **fields)
    about = {"run": LATER, "attempt": 0}
    yield "read that nobody asked for", held.say(OWNERS, ORCHESTRATOR, "read", **about)

    def instead(change):
        """Reveal something, the first worker's answer being `change(fields)`; None: nothing."""

        def door(sender, receiver, message, carry):
            fields = unpack(message)
            if (sender, fields["do"]) == (FIRST, "result"):
                if (fields := change(fields)) is None:
                    return []
                message = msgpack.packb(fields)
            return carry(sender, receiver, message)

        def provoke():
            with held.carried(door):
                session.reveal(session.graph.summed(held.nodes[0], (0,), False))

        return provoke

    yield "a result of another run", instead(lambda fields: fields | {"run": LATER})
    yield "a result of another size", instead(lambda fields: fields | {"revealed": revealed})
    yield "no result", instead(lambda fields: None)


def wrong_values(held):
    """Of values that are shared, or revealed to an owner."""
    later = {"share": LATER, "id": LATER, "shape": (SIZE,), "label": None}
    delta = held.share.tobytes()
    foreign = {"label": f"{FIRST} train 0:3"}
    for receiver, more in ((PROVIDER, {}), (FIRST, {"delta": delta}), (LAST, {"delta": delta})):
        for what, wrong in ("a number that is taken", {"id": held.x}), ("a label", foreign):
            said = held.say(OWNERS, receiver, "input", **later | wrong, **more)
            yield f"input to {receiver} with {what} of another", said
        if more:
            said = held.say(OWNERS, receiver, "input", **later, delta=2 * delta)
            yield f"input to {receiver} of another size", said
    corrections = {"share": LATER, "corrections": 2 * delta}
    for receiver, owner in ((FIRST, OWNERS), (LAST, STRANGER.replace(" ", "-"))):
        said = held.say(PROVIDER, receiver, "deal_input", owner=owner, **corrections)
        yield f"deal_input to {receiver} of {owner}", said
    half = held.say(OWNERS, LAST, "input", **later, delta=delta)
    whole = held.say(PROVIDER, LAST, "deal_input", owner=OWNERS, **corrections)
    yield "deal_input of another size", lambda: (half(), whole())
    public = {"id": LATER + 1, "shape": (SIZE,)}
    yield "public of another size", held.say(ORCHESTRATOR, FIRST, "public", **public, values=b"")
    said = held.say(ORCHESTRATOR, PROVIDER, "public", **public, label=f"{OWNERS} train")
    yield "public with an owner's label", said
    for owners in ((OWNERS, OWNERS), ("nobody",)):
        yield f"keys for {owners}", held.say(ORCHESTRATOR, PROVIDER, "keys", owners=owners)
    which = {"which": "train", "start": 1, "digits": 0}
    for ids, stop in (((LATER,), LATER + 1), ((LATER, LATER + 1), 2), ((0,), 2)):
        said = held.say(ORCHESTRATOR, OWNERS, "share", ids=ids, stop=stop, **which)
        yield f"share items to {stop} as {ids}", said
    yield from wrong_revealed(held)


def wrong_revealed(held):
    """To an owner: shares of two sizes, and when it reads nothing."""
    about, share = {"run": LATER, "attempt": 0}, held.share.tobytes()
    one, other = (
        held.say(worker, OWNERS, "revealed", **about, revealed=share * times)
        for times, worker in enumerate(WORKERS, 1)
    )
    yield "revealed of another size", lambda: (one(), other())

    def unread():
        with mock.patch.object(held.ends[OWNERS], "read", None):
            one()

    yield "revealed to who does not read", unread


def wrong_checkpoints(held):
    """Of what is not stored, not there, damaged or another's."""
    end, about = held.ends[FIRST], {"counts": (), "keep": None, **ABOUT}
    load = {"ids": (LATER + 2,), "shapes": ((SIZE,),), **ABOUT}
    file = end.folder / "1.shares"
    whole, others = file.read_bytes(), (held.ends[LAST].folder / "1.shares").read_bytes()

    def to(verb, **fields):
        return held.say(ORCHESTRATOR, FIRST, verb, **fields)

    def with_content(content):
        def provoke():
            file.write_bytes(content)
            try:
                to("load", **load)()
            finally:
                file.write_bytes(whole)

        return provoke

    def in_folder(folder, verb, fields):
        def provoke():
            with mock.patch.object(end, "folder", folder):
                to(verb, **fields)()

        return provoke

    def hidden():
        value = end.values[held.x]._replace(a=None)
        with mock.patch.dict(end.values, {LATER: value}):
            to("save", ids=(LATER,), **about)()

    yield "save of what is not stored", to("save", ids=(held.x, LATER), **about)
    yield "save of what has a hidden mask", hidden
    for verb, fields in ("save", {"ids": (held.x,), **about}), ("load", load):
        yield f"{verb} without a folder", in_folder(None, verb, fields)
        yield f"{verb} in what is no folder", in_folder(file / "folder", verb, fields)
    yield "load of another step", to("load", **load | {"step": 2})
    yield "load of another run", to("load", **load | {"run_id": "another"})
    yield "load of another model", to("load", **load | {"shapes": ((SIZE + 1,),)})
    yield "load of what is there", to("load", **load | {"ids": (held.x,)})
    yield "load of a file that is damaged", with_content(whole[:-40] + bytes(8) + whole[-32:])
    yield "load of a file that is cut off", with_content(whole[:-20])
    yield "load of a file of another worker", with_content(others)


def wrong_runs(held):
    """Of programs, of what is dealt for them, and what is opened in them."""
    numbers = itertools.count(LATER)

    def run(receiver, instructions, about=("masked", (SIZE,)), **changed):
        """What has an end asked to run a program on a secret; its number."""
        key = pack_program(instructions, ((0, *about),), ())
        fields = dict.fromkeys(("outputs", "counts", "delete", "forget"), ())
        fields |= {"position": None, "to": None, "inputs": (held.x,), "attempt": 0}
        fields |= {"run": next(numbers), "program": name_of(key), "key": key} | changed
        return held.say(ORCHESTRATOR, receiver, "run", **fields), fields["run"]

    for receiver in (PROVIDER, *WORKERS):
        wrong = {
            "under another name": run(receiver, (), program=bytes(16)),
            "that is not known": run(receiver, (), program=bytes(16), key=None),
            "that is none": run(receiver, (), program=name_of(b"none"), key=b"none"),
            "on nothing": run(receiver, (), inputs=()),
            "on another shape": run(receiver, (), ("masked", (SIZE + 1,))),
            "on another form": run(receiver, (), ("share", (SIZE,))),
            "for nobody": run(receiver, (), to="nobody"),
        }
        wrong |= {f"of {op}": run(receiver, ((op, *rest),)) for op, *rest in IMPOSSIBLE}
        for what, (said, _) in wrong.items():
            yield f"run of a program {what} at {receiver}", said
    for what, instructions, receiver, sender, verb, fields in (
        ("dealt for in another size", REVEALS, LAST, PROVIDER, "deal", {"corrections": b""}),
        ("dealt for at the first worker", REVEALS, FIRST, PROVIDER, "deal", {"corrections": b""}),
        ("in which too much is opened", OPENS, FIRST, LAST, "open", {"round": 1, "bits": b""}),
        ("in which round 7 is opened", OPENS, FIRST, LAST, "open", {"round": 7, "bits": b""}),
    ):
        begin, number = run(receiver, instructions)
        words = {"words": held.share.tobytes() * 2} if verb == "open" else {}
        go_on = held.say(sender, receiver, verb, run=number, attempt=0, **fields, **words)
        yield f"a run {what}", lambda begin=begin, go_on=go_on: (begin(), go_on())
