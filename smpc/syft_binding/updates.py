"""Updates of weights: computed in time, and nothing of them lost to rounding."""

import torch

from smpc.semi2k.tensor import semi2k_tensor_in


def install():
    """Make the changes."""
    finish_updates()


def finish_updates():
    """An update of the weights is computed with the loss that is revealed next, or else before the
    next update, not with the first value that happens to depend on it. And most updates are smaller
    than a unit of the weights: what rounding drops of one is added to the next."""
    native_step = torch.optim.SGD.step

    def shared(optimizer):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if (weights := semi2k_tensor_in(parameter)) is not None:
                    yield parameter, weights

    def step(self, closure=None):
        if last := [weights for _, weights in shared(self) if weights.node.pending]:
            last[0].session.compute()
        result = native_step(self, closure)
        for parameter, weights in shared(self):
            keep_remainder(weights, self.state[parameter])
            weights.session.want(weights.node)
        return result

    torch.optim.SGD.step = step


def keep_remainder(weights, state):
    """Make w - u, just written, w - q with q = u + r rounded, r = what the last step dropped; and
    note u + r - q for the next. So all updates together are off by less than a unit."""
    graph, node = weights._graph, weights.node
    if node.op != "sub" or not node.pending:
        return
    before, update = node.inputs
    # (of an update before the weights were saved there is none: a run that goes on from there has
    # none either, and does the same)
    if state.get("saves") == weights.session.saves:
        update = graph.added("add", update, state["remainder"].node)
    rounded = graph.rounded(update, 1)
    weights.node = graph.added("sub", before, rounded)
    remainder = state["remainder"] = weights._of(graph.added("sub", update, rounded))
    state["saves"] = weights.session.saves
    weights.session.want(remainder.node, factor=False)
