"""Who may say what: whatever else comes is refused with one error, and changes nothing."""

import contextlib
import copy
import itertools

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.semi2k import wire
from smpc.semi2k.arithmetic import Masked
from smpc.semi2k.program import Program, name_of, pack_program
from smpc.semi2k.storage import CheckpointError
from smpc.semi2k.wire import Refused, pack, unpack
from tests.semi2k.conftest import check_in_step, ends, new_session, recorded

PARTIES = ("me", "crypto_provider", "worker1", "worker2", "worker3", "owners", "a stranger")
N = 3


class Items:
    """An owner's data: each item is its own number."""

    def batch(self, which, start, stop, digits):
        """As in `Owner`."""
        return {"numbers": np.arange(start, stop)}


class Dialogue:
    """A session in which everything that may be said has been said once.

    Attributes:
        session: the session; `said`: (sender, receiver, message) -> of each verb and pair of roles
            the last one.
    """

    def __init__(self, folder):
        self.session = new_session(N)
        self.session.graph.one = 1000
        self.session.keep_shares_in(folder)
        self.said, self.n = {}, 0
        with recorded(self.session.network) as messages:
            self.session._make_keys()
            x = self.compute()
            self.session.save([x], "run", 1, None)
            self.session.load([x.shape], "run", 1)
            self.compute()
            self.on_hosts()
            self.compute()
        for message in messages:
            role = self.session.roster.role
            self.said[role(message[0]), role(message[1]), unpack(message[2])["do"]] = message

    def on_hosts(self):
        """What is said only where owners have an end on a host of their own."""
        session, read, owner = self.session, [], self.session.network.ends["owners"]
        owner.part, owner.read = Items(), read.append
        session.owner = None
        public = session.share(np.array([2, 3]))
        session.owner = "owners"
        (items,) = session.ask_to_share("owners", [(2,)], which="train", start=4, stop=6, digits=0)
        session.reveal_to(session.graph.times("mul", public, items), "owners")
        assert [values.tolist() for values in read] == [[8, 15]]

    def compute(self):
        """Share, multiply, compare and reveal: right, whatever was said before."""
        self.n += 1
        graph, values = self.session.graph, np.array([self.n, -self.n, 5])
        x = self.session.share(values)
        product = graph.times("mul", x, x)
        positive = graph.times("mul", graph.above_zero(x), product)
        assert self.session.reveal(positive).tolist() == [self.n**2, 0, 25]
        check_in_step(self.session)
        return x

    def state(self):
        """What every end holds, to be compared."""
        workers, provider = ends(self.session)
        held = [(*self._worker(w), tuple(w.programs)) for w in workers]
        masks = {id: mask.tolist() for id, mask in provider.masks.items()}
        owner = self.session.network.ends["owners"]
        held.append((masks, tuple(provider.programs), provider._latest, tuple(provider.unsettled)))
        streams = [*provider._streams.values(), *provider._inputs.values(), owner._stream]
        held.append([(stream.last, stream._cipher.key) for stream in streams])
        held.append((self.session._replies, self.session._counts))
        return copy.deepcopy(held)

    @staticmethod
    def _worker(worker):
        def plain(value):
            parts = value[:2] if isinstance(value, Masked) else (value,)
            return [None if part is None else part.tolist() for part in parts]

        streams = worker._stream, *worker._input_streams.values()
        return (
            {id: plain(value) for id, value in worker.values.items()},
            {w: {id: plain(v) for id, v in of.items()} for w, of in worker.unsettled.items()},
            [(stream.last, stream._cipher.key) for stream in streams],
            worker._latest,
            worker._order is None,
            worker.run is None,
            sorted(worker._heard),
            sorted(worker._dealt),
            sorted(worker._half_inputs),
        )

    def refuses(self, sender, receiver, message):
        """Whether it is refused, in which case nothing has changed. (A load of what is not in the
        file, as of other shapes, is a CheckpointError.)"""
        before = self.state()
        try:
            self.session.network.ends[receiver].receive(sender, message)
        except (Refused, CheckpointError):
            assert self.state() == before
            return True
        return False


@pytest.fixture(scope="module")
def dialogue(tmp_path_factory):
    """A `Dialogue`, that goes on through all tests: none of them may harm the next."""
    return Dialogue(tmp_path_factory.mktemp("checkpoints"))


def test_everything_that_may_be_said_was_said(dialogue):
    may = {(*roles, verb) for roles, verbs in wire.GRAMMAR.items() for verb in verbs}
    assert may - dialogue.said.keys() == {("worker", "orchestrator", "anew")}


def test_each_verb_from_each_wrong_role(dialogue):
    role = dialogue.session.roster.role
    n_refused = 0
    for sender, receiver in itertools.permutations(PARTIES, 2):
        if receiver == "a stranger":
            continue
        for (_, _, verb), (_, _, message) in dialogue.said.items():
            if verb not in wire.GRAMMAR.get((role(sender), role(receiver)), {}):
                assert dialogue.refuses(sender, receiver, message), (sender, receiver, verb)
                n_refused += 1
    assert n_refused > 200
    dialogue.compute()


def test_replayed_messages(dialogue):
    """Whatever was said once is not taken again: not a run, what is dealt or opened, an answer, a
    value or a key."""
    for (_, _, verb), (sender, receiver, message) in dialogue.said.items():
        if verb not in ("keys", "save"):  # these may be asked for again
            assert dialogue.refuses(sender, receiver, message), verb
    with recorded(dialogue.session.network) as messages:
        dialogue.compute()
    for sender, receiver, message in messages:  # every round, too
        assert dialogue.refuses(sender, receiver, message), unpack(message)["do"]
    dialogue.compute()


WRONG = {
    "number": [-1, 2**48, 1.0, True, None, "1", b"1", (), 2**63],
    "bytes": [None, 1, "text", (), b"1234567", {}],
    "tuple": [None, 1, "text", b"", (-1,), (None,), ("1",), ((1, 2, 3),), {}],
    "text": [None, 1, b"a", "", "../up", "a/b", "a" * 65, "a b", ".", ()],
    "label": [None, 1, b"a", "a" * 129, "a\n", "é", ()],
    "shape": [None, 1, (-1,), (1.0,), ("1",), (2**41,), (2**21, 2**21), {}, "ab"],
}
KIND = {
    **dict.fromkeys(("run", "attempt", "round", "share", "id", "step"), "number"),
    **dict.fromkeys(("position", "start", "stop", "digits"), "number"),
    **dict.fromkeys(("key", "words", "bits", "corrections", "delta", "program"), "bytes"),
    **dict.fromkeys(("revealed", "values"), "bytes"),
    **dict.fromkeys(("inputs", "outputs", "counts", "delete", "forget", "ids", "shapes"), "tuple"),
    "owners": "tuple",
    **dict.fromkeys(("run_id", "owner", "which", "to"), "text"),
    "label": "label",
    "shape": "shape",
    "keep": "number",
}


def test_each_field_of_a_wrong_type_size_or_range(dialogue):
    n_refused = 0
    for sender, receiver, message in dialogue.said.values():
        fields = unpack(message)
        for field in fields.keys() - {"do"}:
            may_be_none = field in MAY_BE_NONE or (fields["do"], field) == ("input", "label")
            wrong = [w for w in WRONG[KIND[field]] if w is not None or not may_be_none]
            if field == "attempt":
                wrong.append(2**16)
            for value in wrong:
                changed = msgpack.packb({**fields, field: value})
                assert dialogue.refuses(sender, receiver, changed), (fields["do"], field, value)
                n_refused += 1
            without = {name: value for name, value in fields.items() if name != field}
            assert dialogue.refuses(sender, receiver, msgpack.packb(without))
        assert dialogue.refuses(sender, receiver, msgpack.packb({**fields, "more": 1}))
    assert n_refused > 200
    dialogue.compute()


MAY_BE_NONE = {"key", "keep", "position", "to"}

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40)
    | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=150)
@given(sender=st.sampled_from(PARTIES), receiver=st.sampled_from(PARTIES[:-1]), data=st.data())
def test_random_messages(dialogue, sender, receiver, data):
    """Of bytes, of anything that msgpack can say, and of the right verbs with anything in them."""
    verbs = sorted({verb for _, _, verb in dialogue.said})
    maps = st.fixed_dictionaries({"do": st.sampled_from(verbs) | values})
    message = data.draw(st.binary(max_size=60) | (values | maps).map(msgpack.packb))
    assert dialogue.refuses(sender, receiver, message)


part = st.floats(0, 1, exclude_max=True)
mutations = st.tuples(part, st.integers(0, 255), st.none() | part)


def mutated(mutation, message):
    """Another byte in place of one, and perhaps the end cut off; None if that gives up what must
    not be given up.

    Which run, value or step a message is of, and what counts and is deleted, its sender decides for
    what comes later, too; and a key. These are left as they were.
    """
    where, byte, end = mutation
    changed = bytearray(message)
    changed[int(where * len(message))] = byte
    changed = changed if end is None else changed[: int(end * len(message))]
    try:
        fields, before = unpack(changed), unpack(message)
        kept = all(fields.get(name) == before[name] for name in DECIDE if name in before)
        return bytes(changed) if kept and before["do"] != "key" else None
    except (AttributeError, ValueError, msgpack.UnpackException):  # it is no message
        return bytes(changed)


DECIDE = ("run", "attempt", "share", "counts", "delete", "id", "outputs", "keep", "step", "ids")


@settings(max_examples=300)
@given(which=st.integers(0, 10**6), mutation=mutations)
def test_mutated_messages(dialogue, which, mutation):
    """What was said, changed and said once more: refused, since it was said, or is no message."""
    sender, receiver, message = list(dialogue.said.values())[which % len(dialogue.said)]
    changed = mutated(mutation, message)
    if changed is not None and unpack(message)["do"] not in ("keys", "save"):
        assert dialogue.refuses(sender, receiver, changed)


@settings(max_examples=150)
@given(number=st.integers(0, 42), mutation=mutations)
def test_messages_mutated_on_the_way(dialogue, number, mutation):
    """Each does harm at most to the run, or value, that it is of; the next is right."""

    def harm(n, message, carry):
        sender, receiver, content = message
        changed = mutated(mutation, content) if n == number else None
        if changed is None:
            return carry()
        return dialogue.session.network.ends[receiver].receive(sender, changed)

    with recorded(dialogue.session.network, harm), contextlib.suppress(Refused, RuntimeError):
        values = dialogue.session.share(np.array([4, -4, 5]))
        graph = dialogue.session.graph
        dialogue.session.reveal(graph.times("mul", graph.above_zero(values), values))
    values = None
    dialogue.compute()


# Instructions that no compiler makes, on an input of shape (3,).
MALFORMED = (
    ("no such", (1,), (0,), ()),
    ("add", (1,), (0,), ()),
    ("add", (1,), (0, 7), ()),
    ("add", (0,), (0, 0), ()),
    ("scale", (1,), (0,), ()),
    ("scale", (1,), (0,), ("three",)),
    ("scale", (1,), (0,), (-1,)),
    ("reshape", (1,), (0,), ((2,),)),
    ("reshape", (1,), (0,), ("shape",)),
    ("expand", (1,), (0,), ((2, 2),)),
    ("index", (1,), (0,), ((7,),)),
    ("index", (1,), (0,), (("slice", 0, 1, 0),)),
    ("sum", (1,), (0,), ((4,), False)),
    ("cat", (1,), (0, 0), (3,)),
    ("mul_public", (1,), (0,), ((2,), bytes(24))),
    ("mul_public", (1,), (0,), ((3,), bytes(23))),
    ("matmul_public", (1,), (0,), ((4, 4), bytes(128), True)),
    ("product", (1,), (0, 0), ("pow",)),
    ("select", (1,), (0, 0), ((3,),)),
    ("mask", (1,), (0,), ((4,), False)),
    ("mask", (1,), (0,), (("a",), False)),
    ("unhide", (1,), (0,), ((3,), 1)),
    ("truncate", (1, 2), (0,), ((3,), 0, 41, True)),
    ("truncate", (1, 2), (0,), ((3,), 10, "41", True)),
    ("truncate", (1,), (0,), ((3,), 10, 41, True)),
    ("truncate_exactly", (1, 2), (0,), ((3,), -3)),
    ("above_zero", (1,), (0,), ((3,), 0)),
    ("above_zero", (1,), (0,), ((3,), "all")),
    ("reveal", (), (0,), ((5,),)),
    (1, 2, 3, 4),
    ("add",),
)


@pytest.mark.parametrize("instruction", MALFORMED, ids=lambda instruction: str(instruction[:1]))
def test_programs_that_no_compiler_makes(dialogue, instruction):
    """Each end refuses, and goes on."""
    session = dialogue.session
    node = session.share(np.array([1, 2, 3]))
    key = pack_program((instruction,), ((0, "masked", (3,)),), (0,))
    for end in ("crypto_provider", *session.roster.workers):
        message = pack(
            *("run",),
            run=session._next_run,
            attempt=0,
            program=name_of(key),
            key=key,
            inputs=(node.id,),
            outputs=(10**6,),
            counts=session._counts,
            delete=(),
            forget=(),
            position=None,
            to=None,
        )
        session._next_run += 1
        with contextlib.suppress(Refused):  # at an end where it has no meaning it may wait for ever
            session.network.ends[end].receive("me", message)
    dialogue.compute()


@pytest.mark.parametrize(
    "key", [b"", b"nonsense", msgpack.packb(1), msgpack.packb(((), ())), msgpack.packb(((), 1, 2))]
)
def test_what_is_no_program(dialogue, key):
    with pytest.raises(ValueError, match="this is no program"):
        Program(key)


def test_a_program_goes_by_its_hash(dialogue):
    sender, receiver, message = dialogue.said["orchestrator", "worker", "run"]
    fields = {**unpack(message), "run": 2**40, "program": bytes(16)}
    assert dialogue.refuses(sender, receiver, msgpack.packb(fields)), "it is not known"
    key = pack_program((), (), ())
    assert dialogue.refuses(sender, receiver, msgpack.packb({**fields, "key": key}))


@given(st.sets(st.text(max_size=3)))
def test_a_run_id_is_no_path(names):
    for name in names:
        assert not wire.text(name) or not set(name) & set("./\\\0 ")


def test_an_answer_of_another_run_is_none(dialogue):
    """Neither while nothing is asked, nor in place of the one that is waited for."""
    session = dialogue.session
    sender, receiver, old = dialogue.said["worker", "orchestrator", "result"]
    session._replies = {}
    assert dialogue.refuses(sender, receiver, old)
    tried = []

    def harm(number, message, carry):
        if unpack(message[2])["do"] == "open" and not tried:
            tried.append(dialogue.refuses(sender, receiver, old))
        return carry()

    with recorded(session.network, harm):
        dialogue.compute()
    assert tried == [True]
