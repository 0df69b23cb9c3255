"""The findings: what each attack recovers, and whether that is more than luck on semi2k."""

from typing import NamedTuple

import numpy as np

from smpc.audit import Finding, attacks, chance
from smpc.audit.transcript import ORCHESTRATOR, PROVIDER
from smpc.semi2k import wire

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
    """What is known to leak, to this party, and was not recovered: a list of `Finding`."""
    found = {result.secret for result in results if result.succeeded}
    return [
        Finding("attacks", f"{protocol}: {party} is known to get at the {secret}, and did not")
        for secret in sorted(KNOWN[protocol].get(party, set()) - found)
    ]
