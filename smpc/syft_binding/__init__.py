"""What is changed in syft for `semi2k`, one reason a room; `install()` makes all the changes.

protocols   `.share(..., protocol="semi2k")`; what is not mixed
wrapper     what torch calls on a shared tensor, computed by `smpc.operations` or refused
optimizers  torch's optimisers on shared weights, of whose updates nothing is lost
memory      ids and memory that do not grow with the number of steps
"""

import pathlib

import syft
from syft.frameworks.torch.mpc.primitives import PrimitiveStorage

from smpc.semi2k.graph import Node
from smpc.semi2k.network import Counters
from smpc.semi2k.tensor import Parties, Semi2kTensor, semi2k_tensor_in
from smpc.syft_binding import memory, optimizers, protocols, wrapper


def install():
    """Make `protocol="semi2k"` known to syft. Call it after `TorchHook` and before the workers are
    made. Idempotent."""
    if getattr(syft.AdditiveSharingTensor, "_semi2k_installed", False):
        return
    syft.AdditiveSharingTensor._semi2k_installed = True
    PrimitiveStorage.register_component("semi2k", dict)
    syft.local_worker.crypto_store.semi2k = {}  # the sessions, by their parties
    for room in (protocols, wrapper, optimizers, memory):
        room.install()


def counters() -> Counters | None:
    """Those of the only session there is, of all parties, or None if there is none."""
    sessions = [parties.session for parties in syft.local_worker.crypto_store.semi2k.values()]
    return sessions[0].network.counted() if len(sessions) == 1 else None


def position() -> int | None:
    """That of the next run in the plan of the only session there is; None without one."""
    (parties,) = syft.local_worker.crypto_store.semi2k.values()
    return parties.session.position


def shared_tensor(node: Node, parties: Parties, precision_fractional: int):
    """The chain of syft's tensors on a value that the workers store, as `.fix_precision().share()`
    makes it.

    Args:
        node: of the session of `parties`.
    """
    number = syft.FixedPrecisionTensor(precision_fractional=precision_fractional)
    node.one = number.base**precision_fractional
    number.child = Semi2kTensor(crypto_provider=parties.provider, parties=parties, node=node)
    return wrapper.wrapped(syft.AutogradTensor().on(number, wrap=False))


def truncate_exactly(chain):
    """Have every truncation be exact from here on, among the parties that share this tensor."""
    semi2k_tensor_in(chain).session.exact = True


def save_shares(chains, folder: pathlib.Path, run_id: str, step: int, keep: int | None):
    """Have the workers write the shares of parameters to files of their own; and forget gradients,
    so that what follows is as in a run that goes on from there.

    Args:
        chains: parameters that are shared by `semi2k`, all between the same parties.
        folder: each worker has a folder of its own in it.
        run_id, step: which run and step this is.
        keep: the step whose files are to stay beside the new ones, or None.
    """
    tensors = [semi2k_tensor_in(chain) for chain in chains]
    session = tensors[0].session
    session.keep_shares_in(folder)
    session.save([tensor.node for tensor in tensors], run_id, step, keep)
    for chain in chains:
        if isinstance(chain.child, syft.AutogradTensor):
            chain.child.grad = None


def load_shares(
    chains, folder: pathlib.Path | None, run_id: str, step: int, position: int | None = None
):
    """Give parameters the values whose shares the workers find in the files of `save_shares`.

    Args:
        folder: as of `save_shares`; None where a plan is made, and nothing read.
        position: in the plan, if there is one, from which to go on.

    Raises:
        CheckpointError: a file is missing, damaged, or of another party, run, step or model.
    """
    tensors = [semi2k_tensor_in(chain) for chain in chains]
    session = tensors[0].session
    session.keep_shares_in(folder)
    nodes = session.load([tensor.node.shape for tensor in tensors], run_id, step)
    for tensor, node in zip(tensors, nodes, strict=True):
        node.one = tensor.node.one
        tensor.node = node
    session.position = position
