"""Whether what is opened, less what its viewers know of the mask, is uniform: for any of them.

Of n workers n - 1 watch together. An opening less their own shares of its mask is the secret under
the share of the one who does not; that must be uniform, have nothing to do with the secret or with
any other opening, and never come again. `ledger` shows for certain that a run is what the rules
give; this looks for what is wrong with the rules, and knows no more of masks than whose they are.
"""

import itertools

import numpy as np

from smpc.audit import chance
from smpc.audit.openings import openings, unknown_to


def examine(transcript, secrets, tests):
    """Test all that was opened, sent to be opened, dealt and drawn.

    Args:
        secrets: what is under it, as in `ledger.Ledger`.
        tests: `chance.Tests`; each name begins with "chance: ".
    """
    with np.errstate(over="ignore"):
        roster = transcript.roster
        views = [*map(transcript.view, roster.workers)]  # each of which is followed once
        for absent in views:
            watching = [view for view in views if view is not absent]
            seen = [Seen(*pair, secrets) for pair in unknown_to(watching)]
            _examine(seen, f", to all but {absent.party}", tests)
        whole = openings(views[0])
        _examine_pairs([Seen(o, o.masked, secrets) for o in whole], ", to all", tests)
        for view in (*views, transcript.view(roster.provider)):
            _examine_view(view, tests)


class Seen:
    """An opening as workers see it who watch together.

    Args:
        opening: an `openings.Opening`; value: what is left of it; secrets: see `examine`.
    Attributes:
        value, secret: uint64 (n,); the secret is None where nobody knows it; shape: of both.
    """

    def __init__(self, opening, value, secrets):
        self.op, self.step, self.bits = opening.op, opening.step, opening.bits
        self.shape, self.value = value.shape, value.ravel()
        secret = secrets.get((opening.address, opening.number, opening.step))
        self.secret = None if secret is None else secret.ravel()
        self.name = f"chance: opened by {self.op}, step {self.step}: "


def _examine(seen, to, tests):
    small = {}
    for one in seen:
        if one.value.size < chance.FEW:
            small.setdefault(one.name, []).append(one)
            continue
        tests.add(f"{one.name}bits{to}", chance.uniform(one.value))
        _related(one.name, [one], to, tests)
        if one.bits:
            _examine_planes(one, to, tests)
        else:
            tests.add(f"{one.name}one mask for all{to}", chance.near(np.diff(one.value)))
    for name, some in small.items():
        value = np.concatenate([one.value for one in some])
        if value.size >= chance.FEW:
            tests.add(f"{name}bits of few{to}", chance.uniform(value))
            _related(f"{name}few, ", some, to, tests)
    _examine_pairs(seen, to, tests)


def _related(name, some, to, tests):
    """Test values against what is under them."""
    known = [one for one in some if one.secret is not None]
    if known:
        value, secret = (
            np.concatenate([getattr(k, x) for k in known]) for x in ("value", "secret")
        )
        tests.add(f"{name}beside the secret{to}", chance.bits_agree(value, secret))
        if not known[0].bits:
            tests.add(f"{name}near the secret{to}", chance.near(value - secret))


def _examine_planes(one, to, tests):
    """Bits, in planes: a row for each input of the gates, and in it one for each node."""
    rows = one.value.reshape(one.shape[0] if len(one.shape) > 1 else 1, -1)
    set_ = np.array([chance.ones(row).sum() for row in rows])
    tests.add(f"{one.name}rows{to}", chance.two_sided(set_, 64 * rows.shape[1]))
    if len(rows) > 1:
        pairs = itertools.combinations(rows, 2)
        unlike = np.array([chance.ones(a ^ b).sum() for a, b in pairs])
        tests.add(f"{one.name}pairs of rows{to}", chance.two_sided(unlike, 64 * rows.shape[1]))
    if len(one.shape) == 3 and one.shape[1] > 1:
        nodes = one.value.reshape(one.shape)
        unlike = (nodes[:, :-1] ^ nodes[:, 1:]).reshape(-1, one.shape[2])
        set_ = np.array([chance.ones(row).sum() for row in unlike])
        p = chance.two_sided(set_, 64 * unlike.shape[1])
        tests.add(f"{one.name}neighbouring nodes{to}", p)


def _examine_pairs(seen, to, tests):
    """Any two of one size: one mask for both, or the one a small multiple of the other."""
    by_size = {}
    for one in seen:
        by_size.setdefault((one.bits, one.value.size), []).append(one)
    for (bits, size), some in by_size.items():
        for one, other in itertools.combinations(some, 2) if size >= chance.FEW else ():
            name = f"chance: opened by {one.op} and {other.op}: one mask for both{to}"
            if not bits:
                tests.add(name, chance.related(one.value, other.value))
            elif (one.shape, one.step) == (other.shape, other.step):
                tests.add(name, chance.bits_agree(one.value, other.value))
    words = [one.value for one in seen if not one.bits]
    if words:
        p = chance.any_two_near(np.concatenate(words))
        tests.add(f"chance: opened: one mask for any two{to}", p)


def _examine_view(view, tests):
    """What a party is sent and draws, as it is."""
    party, roster = view.party, view.roster
    if party == roster.provider:
        words = np.concatenate([view.value(e) for e in view.arrays("drawn", name="words")])
        tests.add(f"chance: {party}: drawn twice", chance.any_two_near(words, within=0))
        return
    another = roster.others(party)[0]
    for kind, ends in (
        ("masked", {"sender": party, "receiver": another}),
        ("dealt", {"receiver": party}),
        ("share", {"receiver": party}),
        ("drawn", {"name": "words"}),
    ):
        arrays = [view.value(entry) for entry in view.arrays(kind, **ends)]
        for array in arrays:
            if array.size >= chance.FEW:
                tests.add(f"chance: {party}: bits of what is {kind}", chance.uniform(array))
        if arrays:
            words = np.concatenate(arrays)
            tests.add(f"chance: {party}: {kind} twice", chance.any_two_near(words, within=0))
