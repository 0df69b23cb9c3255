"""Semi2kTensor: what syft's chain of tensors ends in under `protocol="semi2k"`.

It holds a node of the session's graph, whose integers are what FixedPrecisionTensor makes of
numbers; it knows syft, and nothing of the parties but their session. What is computed with it is in
`smpc.operations`; what has to be changed in syft itself for that, in `smpc.syft_binding`.
"""

from typing import NamedTuple

import numpy as np
import syft
import torch
from syft.generic.abstract.tensor import AbstractTensor
from syft.generic.pointers.pointer_tensor import PointerTensor

from smpc.semi2k.session import MOST_WORKERS, Session

AdditiveSharingTensor = syft.AdditiveSharingTensor
MIXED_PROTOCOLS = "semi2k tensors and tensors of another protocol cannot be mixed"


class Parties(NamedTuple):
    """syft's workers that share a tensor, its crypto provider, and their `Session`."""

    workers: tuple
    provider: object
    session: Session

    @classmethod
    def of(cls, workers, provider):
        """These parties; their session is made on first use.

        Raises:
            ValueError: there are not two to five different workers, or no third party to deal.
        """
        ids = [worker.id for worker in workers]
        if not 2 <= len(set(ids)) == len(ids) <= MOST_WORKERS:
            raise ValueError(
                f"semi2k shares between two to {MOST_WORKERS} different workers, not {ids}"
            )
        if not isinstance(provider, syft.workers.abstract.AbstractWorker):
            raise ValueError(f"semi2k needs a crypto_provider, a worker; got {provider!r}")
        if provider.id in ids:
            raise ValueError(
                f"{provider.id} holds shares: the crypto_provider must be a third party"
            )
        if provider is syft.local_worker:
            raise ValueError("the crypto_provider must be a party of its own, not the orchestrator")
        known, name = syft.local_worker.crypto_store.semi2k, (*ids, provider.id)
        parties = known.get(name)
        if parties is None or (*parties.workers, parties.provider) != (*workers, provider):
            # (workers made anew under the same names hold nothing of what the old ones do)
            session = Session.simulated(syft.local_worker.id, ids, provider.id)
            parties = known[name] = cls(tuple(workers), provider, session)
        return parties


class Semi2kTensor(AdditiveSharingTensor):
    """Shares over Z_2^64 among two to five workers, computed with lazily.

    An operation on it makes a node of the session's graph; the workers compute when a value is
    revealed. Values are read as signed. A product is right as long as it stays, before the division
    that fixed precision makes of it, within what the compiler promises for its scale: see
    `compiler.MAGNITUDE` and docs/protocol.md; one that is not divided, within ±2^63.

    Attributes:
        parties: `Parties`, and `node`, the value in their session; both None until `share_secret`
            has shared `child`.
    """

    _node = None  # also where __init__ raises

    def __init__(
        self, shares=None, owner=None, id=None, field=None, dtype=None, crypto_provider=None,
        protocol="semi2k", parties=None, node=None, **kwargs,
    ):  # fmt: skip
        if shares is not None or field not in (None, 2**64) or dtype not in (None, "long", "int64"):
            raise ValueError("semi2k shares 64-bit integers: leave out field, dtype and shares")
        AbstractTensor.__init__(self, id=id, owner=owner, **kwargs)
        self.field, self.dtype, self.torch_dtype = 2**64, "long", torch.int64
        self.crypto_provider, self.protocol = crypto_provider, protocol
        self._plain, self._node, self.parties = None, None, parties
        if node is not None:
            self.node = self.session.note(node)

    def __del__(self):
        self.node = None

    @property
    def session(self):
        """The `Session` of its parties."""
        return self.parties.session

    @property
    def node(self):
        """The shared value; which tensors refer to it decides what the workers keep."""
        return self._node

    @node.setter
    def node(self, node):
        if node is not None:
            node.handles += 1
        if self._node is not None:
            self._node.handles -= 1
        self._node = node

    @property
    def child(self):
        """Before sharing, the tensor to share; then, if the workers store it, pointers by id."""
        if self._node is None or self._node.id is None:
            return self._plain
        return {
            worker.id: PointerTensor(
                location=worker,
                id_at_location=self._node.id,
                owner=syft.local_worker,
                id=syft.ID_PROVIDER.pop(),
                garbage_collect_data=False,
                shape=self.shape,
            )
            for worker in self.parties.workers
        }

    @child.setter
    def child(self, tensor):
        self._plain = tensor

    @property
    def shape(self):
        """A torch.Size."""
        return torch.Size(self.node.shape)

    @property
    def locations(self):
        """The workers."""
        return list(self.parties.workers)

    def __str__(self):
        if self.node.pending:
            self.session.want(self.node, factor=False)
            self.session.compute()
        return super().__str__().replace(type(self).__name__, "AdditiveSharingTensor", 1)

    def share_secret(self, *owners):
        """Share `child`, an integer tensor, among two to five workers.

        Raises:
            ValueError: there are fewer or more, or no third party as crypto provider.
            OverflowError: see `refuse_overflow`.
        """
        refuse_overflow(self._plain)
        self.parties = Parties.of(owners, self.crypto_provider)
        self.node = self.session.share(self._plain.long().numpy())
        self._plain = None
        return self

    def get(self):
        """Reveal the value: an int64 tensor."""
        return torch.from_numpy(np.array(self.session.reveal(self.node)))

    def clone(self):
        """The same value and id."""
        cloned = Semi2kTensor(
            crypto_provider=self.crypto_provider, parties=self.parties, node=self.node
        )
        cloned.id, cloned.owner = self.id, self.owner
        return cloned

    def dim(self):
        """Number of dimensions."""
        return len(self.node.shape)


def refuse_overflow(values):
    """Raise OverflowError where an integer is -2^63, which is what a float beyond becomes."""
    if (values == -(2**63)).any():
        raise OverflowError("a value is too large to be shared, use fewer digits")


def semi2k_tensor_in(chain):
    """The semi2k tensor at the end of a chain of syft's tensors, or None."""
    while hasattr(chain, "child") and not isinstance(chain, Semi2kTensor):
        chain = chain.child
    return chain if isinstance(chain, Semi2kTensor) else None
