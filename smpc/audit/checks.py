"""The findings: what each attack recovers, and whether that is more than luck on semi2k."""

import itertools
from typing import NamedTuple

import numpy as np

from smpc.audit import attacks, chance, resample
from smpc.audit.openings import openings
from smpc.audit.transcript import ORCHESTRATOR, PROVIDER, WORKERS, Transcript
from smpc.semi2k import wire
from smpc.semi2k.randomness import new_key

N_PARAMETERS = 6  # of the script's network: they are the last that is shared, or made public
RECOVERED = 0.99  # of a secret's items, or as correlation with it

# What syft's own protocols are known to give away, and to whom: here the attacks must succeed, so
# that their failing on semi2k means something.
KNOWN = {
    "snn": {
        "worker1": {"hidden values", "images"},
        "worker2": {"hidden values", "images"},
        PROVIDER: {"signs"},
        ORCHESTRATOR: {"images", "labels", "weights"},
    },
    "fss": {
        "worker1": {"images"},
        "worker2": {"images"},
        ORCHESTRATOR: {"images", "labels", "weights"},
    },
}


class Truth(NamedTuple):
    """What was shared, put together by whoever shared it; no attack is given it.

    Attributes:
        images: uint64 (n, 784) of the first training batch, and weights: uint64 (128, 784), in
            fixed precision; the weights are None where they are public.
        labels: int (n,).
        hidden: int64 (n * 128,), the first ReLU's inputs, in fixed precision, rounded.
    """

    images: np.ndarray
    weights: np.ndarray | None
    labels: np.ndarray
    hidden: np.ndarray


def truth_of(transcript):
    """The `Truth` of a recorded run of train_encrypted.py."""
    images, targets, *others = shared(transcript)
    known = public(transcript)
    weights, bias, *_ = (known or others)[-N_PARAMETERS:]
    images, weights = images.reshape(-1, 784), weights.reshape(128, 784)
    unit = 10 ** transcript.arguments["precision_fractional"]
    products = images.view(np.int64).astype(float) @ weights.view(np.int64).T.astype(float)
    hidden = np.rint(products / unit + bias.view(np.int64)).astype(np.int64)
    labels = targets.view(np.int64).reshape(-1, 10).argmax(axis=1)
    return Truth(images, None if known else weights, labels, hidden.ravel())


def shared(transcript):
    """What the owners shared, in the order in which it was asked for: uint64 arrays (n,)."""
    if transcript.protocol == "semi2k":
        values = {}
        for owner in set(transcript.roster.owners) & set(transcript.parties):
            view = transcript.view(owner)  # which has told every worker the same
            said = view.messages(name="input", receiver=transcript.roster.workers[0])
            masks = view.arrays("drawn", name="words")
            for (_, fields), mask in zip(said, masks, strict=True):
                values[fields["id"]] = wire.words(fields["delta"]) + view.value(mask)
        return [value for _, value in sorted(values.items())]
    (owner,) = transcript.roster.owners
    view = transcript.view(owner)
    halves = [view.arrays("share", receiver=worker) for worker in transcript.roster.workers]
    halves = [[view.value(e).ravel().view(np.uint64) for e in half] for half in halves]
    return [one + other for one, other in zip(*halves, strict=True)]


def public(transcript):
    """The values that everybody was told: uint64 arrays (n,)."""
    view = transcript.view(transcript.roster.workers[0])
    return [view.value(entry) for entry in view.arrays("public", name="values")]


# ---- What the attacks recover --------------------------------------------------------------------


class Result(NamedTuple):
    """What an attack made of a view.

    Attributes:
        attack, secret: names.
        guess: what it returned; None where the view had nothing to start from.
        recovered: the part of the secret's items that are right, from 0 to 1; of hidden values,
            which are known up to a constant, the correlation with the truth.
        items: how many there are.
        luck: under semi2k, the probabilities of agreeing with the truth so well by luck.
    """

    attack: str
    secret: str
    guess: np.ndarray | None
    recovered: float
    items: int
    luck: np.ndarray

    @property
    def succeeded(self):
        """Whether the secret is known for all practical purposes."""
        return self.recovered >= RECOVERED


def attack(view, truth, drawn):
    """Make every attack that is this party's to make: a list of `Result`s.

    drawn: what a generator with the run's seed draws, as `attacks.generator` gives it.
    """
    role = view.roster.role(view.party)
    if role == wire.PROVIDER:
        return [_signs(view, truth)]
    if role == wire.ORCHESTRATOR:
        return _unmasked(view, truth)
    results = [_hidden_values(view, truth), _images_by_seed(view, truth, drawn)]
    return results + (_unmasked(view, truth) if view.protocol == "semi2k" else [])


def _hidden_values(view, truth):
    guess, factor = attacks.relu_inputs(view)
    distances = (guess - guess[0]).view(np.int64) / factor
    correlation = abs(np.corrcoef(distances, truth.hidden)[0, 1])
    luck = _luck(np.diff(guess), np.diff(truth.hidden * factor).view(np.uint64))
    name = "differences of what is compared"
    return Result(name, "hidden values", guess, correlation, guess.size, luck)


def _images_by_seed(view, truth, drawn):
    guess = attacks.images_by_seed(view, drawn, len(truth.images))
    hits, looked_for = attacks.seeded_draws(view, drawn)
    by_accident = chance.of_pairs(hits, looked_for * drawn.size / 2**64)
    return _compared("masks from the seed", "images", guess, truth.images, by_accident)


def _unmasked(view, truth):
    inputs = attacks.product_inputs(view)
    name, n = "unmasked products", len(truth.labels)
    is_secret = truth.weights is not None
    if not inputs:
        sizes = {"images": truth.images.size, "labels": n}
        sizes |= {"weights": truth.weights.size} if is_secret else {}
        return [_nothing(name, *pair) for pair in sizes.items()]
    images, labels, weights = attacks.training_secrets(inputs, n)
    right = int((labels == truth.labels).sum())
    return [
        _compared(name, "images", images, truth.images),
        Result(name, "labels", labels, right / n, n, chance.two_sided(right, n, 0.1)),
        *([_compared(name, "weights", weights, truth.weights)] if is_secret else ()),
    ]


def _signs(view, truth):
    name, n = "comparison results, up to a flip", truth.hidden.size
    guess = attacks.signs(view)
    if guess is None:
        return _nothing(name, "signs", n)
    right = int((guess == (truth.hidden >= 0)).sum())
    luck = chance.two_sided(right, n)
    return Result(name, "signs", guess, max(right, n - right) / n, n, luck)


def _nothing(attack, secret, items):
    """Of a view with nothing to start from."""
    return Result(attack, secret, None, 0.0, items, np.ones(1))


def _compared(attack, secret, guess, true, *luck):
    right = (guess == true).mean()
    return Result(attack, secret, guess, right, true.size, np.append(_luck(guess, true), luck))


def _luck(guess, true):
    return np.append(chance.bits_agree(guess, true), chance.near(guess.ravel() - true.ravel()))


def shortfalls(protocol, party, results):
    """What is known to leak, to this party, and was not recovered: lines for the user."""
    found = {result.secret for result in results if result.succeeded}
    return [
        f"{protocol}: {party} is known to get at the {secret}, and did not"
        for secret in sorted(KNOWN[protocol].get(party, set()) - found)
    ]


# ---- Whether semi2k gives anything away ----------------------------------------------------------


def examine(transcript, tests):
    """Test all that was opened, sent to be opened, dealt and drawn: uniform, and never twice."""
    with np.errstate(over="ignore"):
        # (every worker has the same opened)
        workers = transcript.roster.workers
        _examine_openings(openings(transcript.view(workers[0])), tests)
        for worker in workers:
            view = transcript.view(worker)
            another = transcript.roster.others(worker)[0]
            for kind, ends in (
                ("masked", {"sender": worker, "receiver": another}),
                ("dealt", {}),
                ("share", {}),
                ("drawn", {}),
            ):
                arrays = [view.value(entry) for entry in view.arrays(kind, **ends)]
                for array in arrays:
                    if array.size >= chance.FEW:
                        tests.add(f"{worker}: bits of what is {kind}", chance.uniform(array))
                if arrays:
                    words = np.concatenate(arrays)
                    tests.add(f"{worker}: {kind} twice", chance.any_two_near(words, within=0))
        provider = transcript.roster.provider
        view = transcript.view(provider)
        words = np.concatenate([view.value(entry) for entry in view.arrays("drawn")])
        tests.add(f"{provider}: drawn twice", chance.any_two_near(words, within=0))


def _examine_openings(opened, tests):
    words = [opening for opening in opened if not opening.bits]
    for opening in opened:
        name = f"opened by {opening.op}, step {opening.step}: "
        zone = opening.params[2] if opening.op == "truncate" else None
        # (what had a run broken off is not uniform: there is an element below 2^zone in it)
        if opening.value.size >= chance.FEW and (opening.counts or zone is None):
            tests.add(name + "bits", chance.uniform(opening.value, zone))
        if opening.bits:
            rows = _rows(opening.value)
            set_ = np.array([chance.ones(row).sum() for row in rows])
            tests.add(name + "rows", chance.two_sided(set_, 64 * rows.shape[1]))
            if len(rows) > 1:
                pairs = itertools.combinations(rows, 2)
                unlike = np.array([chance.ones(one ^ other).sum() for one, other in pairs])
                tests.add(name + "pairs of rows", chance.two_sided(unlike, 64 * rows.shape[1]))
            if opening.value.ndim == 3 and opening.value.shape[1] > 1:
                unlike = opening.value[:, :-1] ^ opening.value[:, 1:]
                unlike = unlike.reshape(-1, unlike.shape[-1])
                set_ = np.array([chance.ones(row).sum() for row in unlike])
                p = chance.two_sided(set_, 64 * unlike.shape[1])
                tests.add(name + "neighbouring nodes", p)
        elif opening.value.size > 1:
            tests.add(name + "one mask for all", chance.near(np.diff(opening.value.ravel())))
    for one, other in itertools.combinations(opened, 2):
        if one.bits == other.bits and one.value.size == other.value.size >= chance.FEW:
            compare(f"opened by {one.op} and {other.op}: one mask for both", one, other, tests)
    everything = np.concatenate([opening.masked.ravel() for opening in words])
    tests.add("opened: one mask for any two", chance.any_two_near(everything))


def _rows(value):
    """What a level of the comparison's tree opened -> a row for each input of its gates."""
    return value.reshape(len(value) if value.ndim > 1 else 1, -1)


def compare(name, one, other, tests):
    """Test two openings of one size: as independent as two draws, or nearer to each other?"""
    if not one.bits:
        tests.add(name, chance.near(one.masked.ravel() - other.masked.ravel()))
    elif one.value.shape == other.value.shape and one.step == other.step:
        tests.add(name, chance.bits_agree(one.value, other.value))


# ---- Whether a worker's view depends on others' secrets ------------------------------------------


def resampled(folder, tests, repeats=2):
    """Test workers' views under two secrets, all that they hold being the same; and that what is
    public, or in no array, but a number or a name, is the same in every message to anybody.

    A worker alone of two, and two of three together.
    """
    random = np.random.default_rng()
    cases = [(WORKERS, (worker,)) for worker in WORKERS] * repeats
    for workers, holding in [*cases, ((*WORKERS, "worker3"), ("worker1", "worker3"))]:
        keys, transcripts = {worker: new_key() for worker in holding}, []
        for number, secrets in enumerate(resample.draw(random)):
            path = folder / f"{'-'.join(holding)}-{number}.jsonl"
            resample.record(path, workers, keys, secrets)
            transcripts.append(Transcript(path))
        for worker in holding:
            views = [transcript.view(worker) for transcript in transcripts]
            _same_holdings(*views)
            _tell_apart(*views, tests)
        views = [[*map(t.view, t.parties)] for t in transcripts]
        for one, other in zip(*views, strict=True):
            name = f"{' and '.join(holding)} under another secret: numbers and names to {one.party}"
            same = _without_words(one) == _without_words(other)
            tests.add(name, float(same))  # they have no part in luck


def _tell_apart(one, other, tests):
    """Test what a worker was given under one secret against what it was given under the other."""
    name = f"{one.party} under another secret: "
    for a, b in zip(openings(one), openings(other), strict=True):
        compare(f"{name}opened by {a.op}, step {a.step}", a, b, tests)
        if not a.bits:
            tests.add(f"{name}bits opened by {a.op}", chance.bits_agree(a.value, b.value))
    corrections = (view.arrays("dealt", name="corrections") for view in (one, other))
    for pair in zip(*corrections, strict=True):  # they go to the last worker alone
        a, b = (view.value(entry) for view, entry in zip((one, other), pair, strict=True))
        tests.add(f"{name}dealt", chance.near(a - b))
        tests.add(f"{name}bits dealt", chance.bits_agree(a, b))


def _without_words(view):
    """The messages that a party receives, but for the arrays in them that are not public."""
    return [
        (entry[2:7], entry.fields, view.value(entry).tobytes() if entry.kind == "public" else None)
        for entry in view.entries
        if entry.receiver == view.party != entry.sender
    ]


def _same_holdings(one, other):
    for a, b in zip(*(view.arrays("drawn") for view in (one, other)), strict=True):
        if not np.array_equal(one.value(a), other.value(b)):
            raise RuntimeError(f"{one.party} does not hold the same under both secrets")
