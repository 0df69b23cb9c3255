"""torch's optimisers on weights that semi2k shares: SGD with all that it has, and Adam.

What an optimiser remembers of a weight is shared as the weight is. An update is computed with the
loss that is revealed next, or else before the next update, and not with the first value that
happens to depend on it. Most updates are smaller than a unit of the weights: what rounding drops of
one is added to the next, so that all together are off by less than a unit.
"""

import functools

import torch

from smpc.operations.functions import reciprocal, sqrt
from smpc.operations.number import add, multiply, scale, subtract
from smpc.semi2k.tensor import semi2k_tensor_in
from smpc.syft_binding.wrapper import Semi2kWrapper, forget_gradients_of_inputs, number_in

SQUARE_DIGITS = 10  # of the mean of squared gradients that Adam keeps
LEAST_EPS, MOST_STEP = 1e-5, 32  # of Adam: of its eps; of a step before the rate


def install():
    """Make the changes."""
    for optimizer, update in UPDATES.items():
        _compute_updates(optimizer, update)
    _leave_rates_alone()


def _is_shared(optimizer):
    """Whether an optimiser's parameters are shared: all, or none."""
    shared = {isinstance(p, Semi2kWrapper) for g in optimizer.param_groups for p in g["params"]}
    if len(shared) > 1:
        raise TypeError("an optimizer of shared parameters and of others: make one for each")
    return shared == {True}


def _compute_updates(optimizer, update):
    native_step = optimizer.step

    @functools.wraps(native_step)
    def step(self, closure=None):
        if not _is_shared(self):
            return native_step(self, closure)
        if closure is not None:
            raise NotImplementedError("semi2k has no step with a closure: call backward before")
        with torch.no_grad():
            _finish_last(self)
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        _update(parameter, update, group, self.state[parameter])
            forget_gradients_of_inputs(semi2k_tensor_in(parameter).session)
        return None

    optimizer.step = step


def _finish_last(optimizer):
    """Compute the last updates, if nothing was revealed since."""
    weights = (semi2k_tensor_in(p) for group in optimizer.param_groups for p in group["params"])
    if last := [tensor for tensor in weights if tensor.node.pending]:
        last[0].session.compute()


def _update(parameter, update, group, state):
    """Make w - u, w - q with q = u + r rounded, r = what the last step dropped; and note u + r - q
    for the next."""
    weights, number = semi2k_tensor_in(parameter), number_in(parameter)
    session, graph = weights.session, number.graph
    with number.finer():
        grad = number_in(parameter.grad)
        grad = scale(grad, -1) if group["maximize"] else grad
        change = update(session, group, state, number, grad)
        # (of an update before the weights were saved there is no remainder: a run that goes on from
        # there has none either, and does the same)
        if state.get("saves") == session.saves:
            change = add(change, state["remainder"])
        rounded = number.like(graph.rounded(change.node, 1))
        weights.node = session.note(subtract(number, rounded).node)
        state["remainder"] = _remembered(session, subtract(change, rounded))
        state["saves"] = session.saves
    session.want(weights.node)


def _remembered(session, number):
    """A `Number` that is stored, as a share, at the end of the next run."""
    session.want(number.node, factor=False)
    return number


def _average(session, state, name, decay, new, resolution):
    """decay times what is remembered under a name, plus `new`; kept at so many steps a unit."""
    if name in state:
        new = add(scale(state[name], decay), new)
    state[name] = _remembered(session, new.like(new.graph.rounded(new.node, resolution)))
    return state[name]


def _sgd(session, group, state, weights, grad):
    """The update of SGD, as torch has it: with momentum, of Nesterov's kind or not, and decay."""
    if decay := group["weight_decay"]:
        grad = add(grad, scale(weights, decay))
    if momentum := group["momentum"]:
        new = scale(grad, 1 - group["dampening"]) if "momentum" in state else grad
        velocity = _average(session, state, "momentum", momentum, new, weights.graph.resolution)
        grad = add(grad, scale(velocity, momentum)) if group["nesterov"] else velocity
    return scale(grad, group["lr"])


def _adam(session, group, state, weights, grad):
    """The update of Adam (Kingma and Ba 2015, algorithm 1), or of AdamW.

    The mean of squares keeps `SQUARE_DIGITS`, and `eps` is at least `LEAST_EPS`: a gradient keeps
    six digits, and what is left of it below that is noise, which a root would make a step of. A
    root and a reciprocal are computed for each weight in each step, some 20 rounds.
    """
    if group["amsgrad"]:
        raise NotImplementedError("semi2k has no Adam with amsgrad")
    graph, (beta1, beta2), rate = weights.graph, group["betas"], group["lr"]
    steps = state["steps"] = state.get("steps", 0) + 1
    decay = group["weight_decay"]
    if decay and not group["decoupled_weight_decay"]:
        grad = add(grad, scale(weights, decay))
    new = scale(grad, 1 - beta1)
    mean = _average(session, state, "mean", beta1, new, graph.resolution)
    with graph.finer(10**SQUARE_DIGITS // weights.one):
        new = scale(multiply(grad, grad), 1 - beta2)
        squares = _average(session, state, "squares", beta2, new, graph.resolution)
        squares = scale(squares, 1 / (1 - beta2**steps))
    root = add(sqrt(squares), weights.full(max(group["eps"], LEAST_EPS)))
    with weights.finer(MOST_STEP):
        step = multiply(scale(mean, 1 / (1 - beta1**steps)), reciprocal(root))
    update = scale(step, rate)
    return add(update, scale(weights, rate * decay)) if group["decoupled_weight_decay"] else update


UPDATES = {torch.optim.SGD: _sgd, torch.optim.Adam: _adam}


def _leave_rates_alone():
    """syft's `optimizer.fix_precision()` puts every rate into fixed precision, rounded, where no
    schedule can change it. Beside shared weights a rate is a public number and stays as it is."""
    native = torch.optim.Optimizer.fix_precision

    def fix_precision(self, *args, **kwargs):
        return self if _is_shared(self) else native(self, *args, **kwargs)

    torch.optim.Optimizer.fix_precision = fix_precision
