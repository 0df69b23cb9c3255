"""Whether what a training reveals is what the tutorial reveals: each loss, each count, recomputed.

All shares together give the images, the labels and the weights of every run. In the clear the same
network gives the loss, and the items it is right about. Under encryption each weighted sum is
rounded up or down, with mean error 0: the errors of a loss add up with its derivatives as factors,
so that by Hoeffding's inequality it is further off than ERRORS times the root of their squares' sum
with a probability of at most 2 exp(-ERRORS^2 / 2) = 3e-14. Within that a loss may be anything.

A private training reveals no loss, but of how many layers the weights' norm is beyond a bound: that
is a whole number, which follows from the weights.
"""

import math

import numpy as np

from smpc.audit import Finding

ERRORS = 8
UNITS = 2  # a loss is rounded itself; and what is of second order
BOUNDS = {"relu": 24, "quadratic": 16}  # of a layer's norm, in a private training
NORM = 0.01  # how far from its bound a square is certain to be on one side
PARAMETERS = ((128, 784), (128,), (64, 128), (64,), (10, 64), (10,))
ACTIVATIONS = {
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(float)),
    "quadratic": (np.square, lambda x: 2 * x),
}


def found_in(ledger, transcript):
    """What is revealed, and is not what it is to be: a list of `Finding`.

    Args:
        ledger: the `ledger.Ledger` of a training of the script, of which `transcript` is.
    """
    try:
        lines = [*Replay(ledger, transcript.arguments).differences()]
    except (LookupError, TypeError, ValueError) as error:
        lines = [f"what is revealed is of no training of the tutorial's network: {error!r}"]
    revealed, most = sum(run.revealed.size for run in ledger.runs), promised(transcript)
    lines += [f"{revealed} numbers are revealed, not {most}"] if revealed > most else []
    return [Finding("meaning", line) for line in lines]


def promised(transcript):
    """How many numbers a training of the script may reveal, by its arguments."""
    arguments, roster = transcript.arguments, transcript.roster
    batches = math.ceil(arguments["n_train_items"] / arguments["batch_size"])
    asked = transcript.view(roster.orchestrator).messages(sender=roster.orchestrator, name="share")
    if trained_on := {fields["ids"] for _, fields in asked if fields["which"] == "train"}:
        batches = len(trained_on)  # on hosts, where each owner has batches of its own
    every = 1 if arguments.get("private") else arguments["log_interval"]
    losses = math.ceil(batches / every)  # or, instead, how many layers are beyond their bound
    weights = sum(map(math.prod, PARAMETERS)) if arguments["save_model"] else 0
    return arguments["epochs"] * (losses + 1) + weights


class Replay:
    """A training in the clear, run by run."""

    def __init__(self, ledger, arguments):
        self.runs, self.shared = ledger.runs, ledger.inputs
        self.unit = 10 ** arguments["precision_fractional"]
        self.activation = ACTIVATIONS[arguments["activation"]]
        self.may_be_saved = arguments["save_model"] is not None
        self.bound = BOUNDS[arguments["activation"]]
        self.of_step = self._beyond if arguments.get("private") else self._loss
        self.parameters = [None] * len(PARAMETERS)

    def differences(self):
        """Lines for the user."""
        batches = []
        for run in self.runs:
            self._follow(run)
            batches += self._batches(run)
            revealed = run.revealed.view(np.int64)
            if revealed.size == 1 and batches:
                between = self._count if self._is_test(batches) else self.of_step
                least, most = between(batches)
                if not least <= revealed[0] <= most:
                    number = f"run {run.address[0]} reveals {revealed[0] / self.unit:g}"
                    range_ = f"{least / self.unit:g} and {most / self.unit:g}"
                    yield f"{number}, which in the clear is between {range_}"
            elif revealed.size and not (self.may_be_saved and self._is_parameter(revealed)):
                yield f"run {run.address[0]} reveals {revealed.size} numbers that are no weights"
            batches = [] if revealed.size else batches

    def _follow(self, run):
        """Of what a run reads, take for each parameter what is of its shape and nearest to what it
        was: the rest is what rounding has left of updates."""
        others = [
            value.view(np.int64) for id, value in run.inputs.items() if not self._is_of_a_batch(id)
        ]
        for number, shape in enumerate(PARAMETERS):
            candidates = [value for value in others if value.shape == shape]
            before = self.parameters[number]
            if candidates:
                was = 0 if before is None else before
                self.parameters[number] = min(candidates, key=lambda x: np.abs(x - was).sum())

    def _is_of_a_batch(self, id):
        return id in self.shared and (self._is_image(id) or self._is_image(id - 1))

    def _is_image(self, id):
        return id in self.shared and self.shared[id].ndim == 4

    def _batches(self, run):
        """The (images, targets) that a run reads; an owner shares its targets after the images."""
        ids = [id for id in run.inputs if self._is_image(id)]
        return [(run.inputs[id], self.shared[id + 1].view(np.int64)) for id in ids]

    @staticmethod
    def _is_test(batches):
        return batches[0][1].ndim == 1

    def _is_parameter(self, revealed):
        known = [p for p in self.parameters if p is not None]
        return any(np.array_equal(revealed, p.ravel()) for p in known)

    # ---- in the clear

    def _forward(self, images):
        """What enters each activation, and the output: arrays (n, ...), in numbers."""
        weights = [p / self.unit for p in self.parameters]
        x, sums = images.view(np.int64).reshape(len(images), -1) / self.unit, []
        for weight, bias in zip(weights[::2], weights[1::2], strict=True):
            sums.append((self.activation[0](sums[-1]) if sums else x) @ weight.T + bias)
        return sums

    def _loss(self, batches):
        """Between what numbers, in units, a loss is."""
        images, targets = batches[-1]  # of others, none was asked for
        *sums, output = self._forward(images)
        error = output - targets / self.unit
        loss = (error**2).sum() / len(images)
        slope = 2 * error / len(images)
        squares = (slope**2).sum()
        for layer in (2, 1):
            weight = self.parameters[2 * layer] / self.unit
            slope = slope @ weight * self.activation[1](sums[layer - 1])
            squares += (slope**2).sum()
        off = UNITS + ERRORS * np.sqrt(squares)
        return loss * self.unit - off, loss * self.unit + off

    def _beyond(self, _):
        """Between what numbers, in units, that of the layers beyond their bound is."""
        squares = [((p / self.unit) ** 2).sum() for p in self.parameters]
        norms = np.add(squares[::2], squares[1::2])
        counts = ((norms > self.bound**2 + off).sum() for off in (NORM, -NORM))
        return tuple(int(count) * self.unit for count in counts)

    def _count(self, batches):
        """Between what numbers, in units, the right answers to all these are."""
        certain = possible = 0
        for images, targets in batches:
            sums = self._forward(images)
            output, spread = sums[-1], self._spread(sums)
            right = (targets // self.unit)[:, None] == np.arange(10)
            are_digits = right.any(axis=1)  # nothing is right about any other label
            right, output, spread = right[are_digits], output[are_digits], spread[are_digits]
            of_right = output[right][:, None]
            off = ERRORS * (spread + spread[right][:, None]) + UNITS / self.unit
            certain += (right | (of_right - output > off)).all(axis=1).sum()
            possible += (right | (of_right - output > -off)).all(axis=1).sum()
        return certain * self.unit, possible * self.unit

    def _spread(self, sums):
        """How far rounding moves each output, in numbers: (n, 10)."""
        squares = np.full_like(sums[0], self.unit**-2.0)
        for layer in (1, 2):
            weight = self.parameters[2 * layer] / self.unit
            moved = squares * self.activation[1](sums[layer - 1]) ** 2
            squares = moved @ (weight**2).T + self.unit**-2.0
        return np.sqrt(squares)
