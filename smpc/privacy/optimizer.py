"""SGD on clipped gradients with noise that nobody knows.

    optimizer = PrivateSGD(model, clip=4, sigma=10.7, n_workers=2, lr=0.3)

It takes the place of `torch.optim.SGD` in a training loop, which stays as it is; the loss is the
mean over a batch of each item's own. What the steps come to is told by `accounting`, and why it is
so by docs/privacy.md; what else a loop reveals is not this module's.
"""

import math
from fractions import Fraction

import torch
from torch import nn

from smpc.operations import number
from smpc.privacy import accounting, clipping
from smpc.privacy.clipping import STEPS, Bounds, Layer
from smpc.semi2k.tensor import semi2k_tensor_in
from smpc.syft_binding.wrapper import number_in, tensor_of


class PrivateSGD(torch.optim.SGD):
    """torch's SGD, with all that it has, of what `clipping` makes of each batch, and noise.

    Args:
        model: shared under semi2k: `nn.Linear` layers, and `F.relu` or squares between.
        clip: the norm that no item's gradient exceeds.
        sigma: the standard deviation of all workers' noise together, in each coordinate of the sum
            of a batch's gradients, and before it is correlated; `n_workers`: of whom each adds its
            part.
        correlation: of a step's noise with that of steps before: see `semi2k.noise`.
        bounds: see `clipping.Bounds`.
        lr, momentum: of `torch.optim.SGD`.
    Raises:
        NotImplementedError: the model has another layer; at a step: another activation, or a layer
            that was not called, once, for the batch.
        ValueError: rounding takes more than half of `clip`.
    """

    def __init__(
        self, model, clip, sigma, n_workers, correlation=(), bounds=None, *, lr, momentum=0.0
    ):
        super().__init__(model.parameters(), lr=lr, momentum=momentum)
        self.clip, self.bounds = clip, bounds or Bounds()
        self.sigma, self.correlation = sigma / math.sqrt(n_workers), correlation  # of each worker's
        self._noise = sigma * accounting.gain(correlation, momentum)
        self._passed = []  # [layer, a, z, e] of the batch; see `clipping`
        width = 0
        for layer in model.modules():
            if any(layer.children()) and not [*layer.parameters(recurse=False)]:
                continue
            if not isinstance(layer, nn.Linear) or layer.bias is None:
                raise NotImplementedError(
                    f"{layer}: what can be trained privately is nn.Linear with a bias"
                )
            layer.register_forward_hook(self._note)
            width += layer.out_features
        if clip < (least := 2 * clipping.slack(width, self.bounds)):
            raise ValueError(f"a clip of {clip:g} is taken up by rounding, use {least:.2g} or more")

    @property
    def _session(self):
        """That the weights are shared in."""
        return semi2k_tensor_in(self.param_groups[0]["params"][0]).session

    def zero_grad(self, set_to_none=True):
        """Forget the last batch; what is made from now on, up to the step, is right as far as the
        proof needs."""
        super().zero_grad(set_to_none)
        self._passed = []
        self._session.graph.promised = math.ceil(self.bounds.largest())

    def _note(self, layer, taken, gave):
        """What passes a layer: called when that has been computed. Its error is noted when the loss
        goes backward, opened as it will be clipped, and is what goes on from there."""
        if not torch.is_grad_enabled():
            return gave
        a, z = number_in(taken[0]).detached(), number_in(gave)
        if not z.graph.promised:
            raise RuntimeError("call zero_grad() of the optimizer before each batch")
        if a.dim != 2:
            raise NotImplementedError(f"items of shape {a.shape[1:]}: a private layer takes rows")
        if self._passed:
            self._check_activation(self._passed[-1][2].node, a.node)
        passed = [layer, a, z.detached(), None]
        self._passed.append(passed)

        def rule(grad):
            if passed is self._passed[-1]:  # of the loss of each item, and not of their mean
                grad = number.scale(grad, a.shape[0])
            passed[3] = clipping.opened(grad, STEPS, self.bounds.largest_error())
            return passed[3]

        return tensor_of(z.detached().by((z, rule)), gave)

    def _check_activation(self, z, a):
        """Raise NotImplementedError unless a layer takes the ReLU of what the last one gave, or its
        square, and `bounds` are made for that."""
        unit = Fraction(1, z.one)
        if a.op == "scaled" and a.pending and a.params == (unit,):
            is_known, power = a.inputs[0].op == "mul" and a.inputs[0].inputs == (z, z), 2
        else:
            signs = [x for x in a.inputs if x.op == "above_zero" and x.inputs == (z,)]
            is_known, power = a.op == "mul" and len(signs) == 1 and z in a.inputs, 1
        if not is_known:
            raise NotImplementedError(
                "between private layers there is F.relu or a square, in batches of 20,000 at most"
            )
        if self.bounds.powers < power:
            raise ValueError("the square of an activation needs bounds with powers=2")

    def step(self, closure=None):
        """Clip, add noise, and take torch's step.

        Raises:
            OverflowError: a layer's weights were beyond their bound, so that the clipping may have
                been wrong: nothing that was made of this step may be revealed. Or the step may be
                so large that this would not be seen.
        """
        parameters = [p for part, *_ in self._passed for p in (part.weight, part.bias)]
        if sorted(map(id, parameters)) != sorted(map(id, self.param_groups[0]["params"])):
            raise NotImplementedError("in a private training each layer is called once for a batch")
        self._session.graph.promised = 0
        with torch.no_grad():
            layers = [
                Layer(number_in(part.weight), number_in(part.bias), a, error)
                for part, a, _, error in self._passed
            ]
            count = layers[0].taken.shape[0]
            self._check_move(count)
            sums = clipping.clipped_sums(layers, self.clip, self.bounds)
            for slot, (parameter, total) in enumerate(zip(parameters, sums, strict=True)):
                noisy = number.noised(total, self.sigma, self.correlation, slot)
                parameter.grad = tensor_of(number.scale(noisy, Fraction(1, count)), parameter)
            beyond = clipping.beyond(layers, self.bounds)
        super().step(closure)
        super().zero_grad()
        self._passed = []
        if n_beyond := self._session.reveal(beyond.node).item() // beyond.one:
            raise OverflowError(
                f"the weights of {n_beyond} layers have a norm beyond {self.bounds.weights}, which "
                "the clipping relies on: lower --lr"
            )

    def _check_move(self, count):
        """Raise OverflowError unless a step moves the weights by less than their bound, so that
        they are still compared rightly: by clipped gradients at the most, and by noise but with
        probability exp(-72)."""
        group = self.param_groups[0]
        size = math.sqrt(sum(parameter.numel() for parameter in group["params"]))
        noise = self._noise * (size + 12) / count
        move = group["lr"] * (self.clip / (1 - group["momentum"]) + noise)
        if move > self.bounds.weights:
            raise OverflowError(
                f"a step may move the weights by {move:.3g}, which is more than the "
                f"{self.bounds.weights} that the clipping relies on: lower --lr"
            )
