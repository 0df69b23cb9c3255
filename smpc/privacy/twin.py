"""The plain twin of private training: the same clipping and noise in the clear, in float32.

A network is a list of layers, each [W b] in one float32 matrix (M, out, in + 1), of M models that
are trained at once on the same batches: one, or the many that an attack compares. The activation
stands between layers, not after the last. The loss of an item is the squared error, summed over
the outputs, and a batch's the sum of its items' over the batch's size.

No gradient of an item is formed. That at a layer is the outer product of δ, the item's gradient at
the layer's output, and [a 1], a being the layer's input; so the squared norm over all layers is the
sum of |δ|² (|a|² + 1), and to scale δ is to scale the item's gradient (docs/privacy.md).
"""

import os
from collections import deque
from typing import NamedTuple

import torch

from smpc.privacy.clipping import N_THRESHOLDS, Bounds
from smpc.semi2k.noise import UNIT

# activation -> (value of it, its derivative from its argument)
ACTIVATIONS = {
    "relu": (torch.relu, lambda x: (x > 0).float()),
    "quadratic": (torch.square, lambda x: 2 * x),
}


class Mechanism(NamedTuple):
    """What makes training private, to be varied one by one.

    Attributes:
        clip: the most that an item's gradient may have as its norm; None leaves it as it is.
        noise: the standard deviation of each coordinate of a batch's sum, before it is correlated.
        correlation: with the noise of steps before, as `semi2k.noise.Noise.add` takes it.
        bounds: of inputs, δ and weights; they hold with and without clipping.
    """

    clip: float | None
    noise: float
    bounds: Bounds = Bounds()
    correlation: tuple = ()


class Schedule(NamedTuple):
    """What is public of a run, and costs no privacy to choose, beside the number of epochs.

    Attributes:
        rates: the learning rate of each epoch; the last stays.
        momentum: of torch's SGD.
    """

    epochs: int
    batch_size: int
    rates: list
    momentum: float = 0

    def rate(self, epoch):
        """The learning rate of an epoch, the first being 1."""
        return self.rates[min(epoch, len(self.rates)) - 1]


class Step(NamedTuple):
    """A step of training, as `train_in_the_clear` yields it after taking it.

    Attributes:
        sums: of each layer, the sum of the batch's clipped gradients and the noise, (M, out, in+1).
        losses: of each model and item of the batch, before the step (M, B).
        factors: what each item's gradient was multiplied by (M, B).
    """

    epoch: int
    batch: int
    sums: list
    losses: torch.Tensor
    factors: torch.Tensor


def from_system_randomness():
    """A torch.Generator whose seed nobody knows. It is good for a simulation, not for secrets."""
    return torch.Generator().manual_seed(int.from_bytes(os.urandom(8), "little"))


def stacked(models):
    """The layers of M modules of one kind, whose nn.Linear layers follow one another, copied."""
    each = [
        [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
        for model in models
    ]
    return [
        torch.stack([torch.cat([one.weight, one.bias[:, None]], 1).detach() for one in layers])
        for layers in zip(*each, strict=True)
    ]


def put_into(model, layers, index=0):
    """Give a module the weights of one of the M models."""
    own = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    with torch.no_grad():
        for layer, weights in zip(own, layers, strict=True):
            layer.weight.copy_(weights[index, :, :-1])
            layer.bias.copy_(weights[index, :, -1])


def factors(squared_norms, clip):
    """What to multiply gradients of these squared norms by, so that none is above `clip`: 1 below
    the first public threshold, clip² · √2ᵏ; above each, clip by the root of the next; above the
    last, and for what is no number, 0."""
    thresholds = clip**2 * 2 ** torch.arange(0, N_THRESHOLDS / 2, 0.5)
    table = torch.cat([torch.ones(1), clip / thresholds[1:].sqrt(), torch.zeros(1)])
    return table[torch.searchsorted(thresholds, squared_norms, right=True)]


def outputs(layers, data, activation="relu"):
    """What M models give for a batch: data (B, in) -> (M, B, out)."""
    return _forward(layers, data, activation)[1][-1]


def _forward(layers, data, activation):
    """Of each layer the inputs, with a 1 after them (M or 1, B, in + 1), and the (M, B, out)."""
    inputs, sums = [], []
    x = data[None]
    for number, weights in enumerate(layers):
        if number:
            x = ACTIVATIONS[activation][0](sums[-1])
        x = torch.nn.functional.pad(x, (0, 1), value=1)
        inputs.append(x)
        sums.append(torch.matmul(x, weights.transpose(1, 2)))
    return inputs, sums


def backward(layers, data, target, activation="relu"):
    """What clipping needs of each item: data (B, in), target (B, out).

    Returns:
        of each layer the inputs, with a 1 after them (M or 1, B, in + 1); of each layer δ
        (M, B, out); and the losses (M, B).
    """
    inputs, sums = _forward(layers, data, activation)
    error = sums[-1] - target
    errors = [2 * error]
    for number in range(len(layers) - 1, 0, -1):
        back = torch.matmul(errors[0], layers[number][:, :, :-1])
        errors.insert(0, back * ACTIVATIONS[activation][1](sums[number - 1]))
    return inputs, errors, error.square().sum(2)


def clipping(inputs, errors, mechanism):
    """What to multiply each item's δ by (M, B), from what `backward` returns."""
    squares = [(a.square().sum(2), d.square().sum(2)) for a, d in zip(inputs, errors, strict=True)]
    scale = torch.ones(errors[0].shape[:2])
    if mechanism.clip is not None:
        scale = factors(sum(a * d for a, d in squares), mechanism.clip)
    for a, d in squares:
        scale = scale * (a - 1 <= mechanism.bounds.inputs**2) * (d <= mechanism.bounds.errors**2)
    return scale


def train_in_the_clear(
    layers, data, target, schedule, mechanism, generator=None, activation="relu", included=None
):
    """Train M models, whose `layers` are changed in place; a generator of a `Step` after each.

    Args:
        data, target: all items (N, in) and (N, out), in batches as they come: the last may be
            smaller.
        generator: of the noise; one of its own, from the operating system, if None.
        included: of each model and item, whether it is trained on (M, N): one that is not
            contributes 0, and so the batches are the same with it and without.
    Raises:
        OverflowError: a layer's weights went beyond the mechanism's bound, or are no numbers.
    """
    generator = generator or from_system_randomness()
    velocity = [torch.zeros_like(weights) for weights in layers]
    past = [deque(maxlen=len(mechanism.correlation)) for _ in layers]
    n_items = len(data)
    for epoch in range(1, schedule.epochs + 1):
        for batch, start in enumerate(range(0, n_items, schedule.batch_size)):
            items = slice(start, min(start + schedule.batch_size, n_items))
            inputs, errors, losses = backward(layers, data[items], target[items], activation)
            scale = clipping(inputs, errors, mechanism)
            if included is not None:
                scale = scale * included[:, items]
            sums = [
                torch.matmul((scale[:, :, None] * d).transpose(1, 2), a)
                for a, d in zip(inputs, errors, strict=True)
            ]
            for one, before in zip(sums, past, strict=True):
                if mechanism.noise:
                    one += _noise(one.shape, mechanism, before, generator)
            size = items.stop - items.start
            _descend(layers, velocity, [one / size for one in sums], schedule, epoch)
            _check(layers, mechanism.bounds)
            yield Step(epoch, batch, sums, losses, scale)


def _noise(shape, mechanism, before, generator):
    """A step's noise; `before` is that of the last steps, the latest first."""
    noise = mechanism.noise * torch.randn(shape, generator=generator)
    for c, one in zip(mechanism.correlation, before, strict=False):
        noise -= c / UNIT * one
    before.appendleft(noise)
    return noise


def _descend(layers, velocity, gradients, schedule, epoch):
    """A step of torch's SGD."""
    for weights, speed, gradient in zip(layers, velocity, gradients, strict=True):
        speed.mul_(schedule.momentum).add_(gradient)
        weights.sub_(speed, alpha=schedule.rate(epoch))


def _check(layers, bounds):
    for number, weights in enumerate(layers, 1):
        norm = torch.linalg.vector_norm(weights, dim=(1, 2)).max().item()
        if not norm <= bounds.weights:
            raise OverflowError(
                f"the weights of layer {number} have a norm of {norm:g}, more than the "
                f"{bounds.weights:g} that clipping allows for: lower the learning rate"
            )
