"""Semi2kTensor: what syft's chain of tensors ends in under `protocol="semi2k"`.

It takes integers, which FixedPrecisionTensor gives it, and makes nodes of the session's graph; it
knows syft, and nothing of the parties but their session. What has to be changed in syft itself for
it is in `smpc.syft_binding`.
"""

import math
import operator
from fractions import Fraction
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

    An operation makes a node of the session's graph; the workers compute when a value is revealed.
    Values are read as signed. A product is right as long as it stays, before the division that
    fixed precision makes of it, within what the compiler promises for its scale: see
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

    # ---- making tensors of nodes and nodes of operands

    def _of(self, node):
        return Semi2kTensor(crypto_provider=self.crypto_provider, parties=self.parties, node=node)

    def _assign(self, other):
        self.node = other.node
        return self

    def _operand(self, other):
        """The node of anything that an operation may have beside a semi2k tensor."""
        while not isinstance(other, AdditiveSharingTensor) and hasattr(other, "child"):
            other = other.child
        if isinstance(other, Semi2kTensor):
            if other.session is not self.session:
                raise ValueError("these two tensors are shared between different parties")
            return other.node
        if isinstance(other, int):
            return self.session.graph.constant(other, ())
        if isinstance(other, torch.Tensor) and not other.is_floating_point():
            refuse_overflow(other)
            return self.session.graph.array(other.long().numpy())
        raise TypeError(
            f"semi2k computes with semi2k tensors and integers, not {_described(other)}"
        )

    @property
    def _graph(self):
        return self.session.graph

    # ---- arithmetic

    def add(self, other):
        """self + other."""
        return self._of(self._graph.added("add", self.node, self._operand(other)))

    def sub(self, other):
        """self - other."""
        return self._of(self._graph.added("sub", self.node, self._operand(other)))

    def __rsub__(self, other):
        return self._of(self._graph.added("sub", self._operand(other), self.node))

    def neg(self):
        """-self."""
        return self._of(self._graph.scaled(self.node, -1))

    def mul(self, other):
        """self * other, element by element, broadcast. Not divided by any precision."""
        if isinstance(other, int):
            return self._of(self._graph.scaled(self.node, other))
        return self._of(self._graph.times("mul", self.node, self._operand(other)))

    def matmul(self, other):
        """self @ other, of any dimensions that matmul takes."""
        return self._of(self._graph.times("matmul", self.node, self._operand(other)))

    def rmatmul(self, other):
        """other @ self, for a public `other`."""
        return self._of(self._graph.times("matmul", self._operand(other), self.node))

    def square(self):
        """self * self."""
        return self.mul(self)

    def pow(self, power):
        """self to a public integer power, by squaring."""
        if not isinstance(power, int) or power < 0:
            raise ValueError(f"semi2k raises to integers of at least 0, not {power!r}")
        if power == 0:
            return self._of(self._graph.constant(1, self.node.shape))
        half = self.pow(power // 2) if power > 1 else None
        squared = self if half is None else half.mul(half)
        return squared.mul(self) if power > 1 and power % 2 else squared

    def div(self, divisor):
        """self / divisor for a public integer, rounded to either neighbour with mean error 0."""
        value = divisor if isinstance(divisor, int) else self._operand(divisor).number_in_all
        if value is None:
            raise TypeError("semi2k divides by one public number")
        if value == 0:
            raise ZeroDivisionError("division of a semi2k tensor by 0")
        return self._of(self._graph.scaled(self.node, Fraction(1) / value))

    def add_(self, other):
        """self += other."""
        return self._assign(self.add(other))

    def sub_(self, other):
        """self -= other."""
        return self._assign(self.sub(other))

    def mul_(self, other):
        """self *= other."""
        return self._assign(self.mul(other))

    def div_(self, other):
        """self /= other."""
        return self._assign(self.div(other))

    def neg_(self):
        """self = -self."""
        return self._assign(self.neg())

    def zero_(self):
        """self = 0, of the same shape."""
        return self._assign(self._of(self._graph.constant(0, self.node.shape)))

    def refresh(self):
        """The same value in fresh shares."""
        return self._of(self._graph.refreshed(self.node))

    def zero(self, shape=None):
        """Zeros of `shape`, or of the same shape."""
        return self._of(self._graph.constant(0, tuple(shape or self.node.shape)))

    def clone(self):
        """The same value and id."""
        cloned = self._of(self.node)
        cloned.id, cloned.owner = self.id, self.owner
        return cloned

    def type(self, *args):
        """Itself: every share is a 64-bit integer."""
        return self

    long = type
    __radd__ = __add__ = add
    __sub__ = sub
    __rmul__ = __mul__ = mul
    __matmul__ = mm = matmul
    __truediv__ = div
    __neg__ = neg
    __pow__ = pow
    __iadd__, __isub__, __imul__, __itruediv__ = add_, sub_, mul_, div_

    # ---- sums and shapes

    def sum(self, dim=None, keepdim=False):
        """The sum over all elements, one dimension, or several."""
        axes = _axes(dim, self.dim())
        return self._of(self._graph.summed(self.node, axes, keepdim))

    def mean(self, dim=None, keepdim=False):
        """The mean over all elements, one dimension, or several."""
        total = self.sum(dim, keepdim)
        count = math.prod(self.shape[axis] for axis in _axes(dim, self.dim()))
        return total.div(count)

    def view(self, *shape):
        """Of another shape with as many elements."""
        shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return self._of(self._graph.moved("reshape", self.node, tuple(int(n) for n in shape)))

    reshape = view

    def view_as(self, other):
        """Of `other`'s shape."""
        return self.view(*other.shape)

    reshape_as = view_as

    def flatten(self):
        """Of one dimension."""
        return self.view(-1)

    def squeeze(self, dim=None):
        """Without dimension `dim`, or any, of size 1."""
        dims = range(self.dim()) if dim is None else [dim % max(self.dim(), 1)]
        return self.view([n for i, n in enumerate(self.shape) if i not in dims or n != 1])

    def unsqueeze(self, dim):
        """With a dimension of size 1 at `dim`."""
        shape = list(self.shape)
        shape.insert(dim % (len(shape) + 1), 1)
        return self.view(shape)

    def permute(self, *axes):
        """With its dimensions in another order."""
        axes = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return self._of(
            self._graph.moved("permute", self.node, tuple(axis % self.dim() for axis in axes))
        )

    def transpose(self, one, other):
        """With two dimensions exchanged."""
        axes = list(range(self.dim()))
        axes[one], axes[other] = axes[other], axes[one]
        return self.permute(axes)

    def t(self):
        """The transpose of a tensor of at most two dimensions."""
        return self.permute(tuple(reversed(range(self.dim()))))

    def expand(self, *shape):
        """Broadcast to a shape, -1 keeping a dimension as it is."""
        shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        old = (*[1] * (len(shape) - self.dim()), *self.shape)
        shape = tuple(o if n == -1 else n for n, o in zip(shape, old, strict=True))
        return self._of(self._graph.moved("expand", self.node, shape))

    def __getitem__(self, indices):
        spec = tuple(map(_index, indices if isinstance(indices, tuple) else (indices,)))
        return self._of(self._graph.moved("index", self.node, spec))

    def dim(self):
        """Number of dimensions."""
        return len(self.node.shape)

    def numel(self):
        """Number of elements."""
        return self.node.size

    def size(self, dim=None):
        """The shape, or the size of one dimension."""
        return self.shape if dim is None else self.shape[dim]

    def __len__(self):
        return self.shape[0] if self.shape else 0

    # ---- comparisons

    def _above_zero(self):
        """1 where self > 0, else 0."""
        return self._of(self._graph.above_zero(self.node))

    def gt(self, other):
        """1 where self > other, else 0."""
        return self.sub(other)._above_zero()

    def lt(self, other):
        """1 where self < other, else 0."""
        return self.__rsub__(other)._above_zero()

    def ge(self, other):
        """1 where self >= other, else 0."""
        return 1 - self.lt(other)

    def le(self, other):
        """1 where self <= other, else 0."""
        return 1 - self.gt(other)

    def eq(self, other):
        """1 where self == other, else 0."""
        return 1 - self.gt(other) - self.lt(other)

    __gt__, __lt__, __ge__, __le__, __eq__ = gt, lt, ge, le, eq
    __hash__ = object.__hash__

    def relu(self, inplace=False):
        """self where it is above 0, else 0."""
        return self._above_zero().mul(self)

    def _tournament(self, dim):
        """(the largest elements along `dim`, their indices), both with `dim` kept at size 1."""
        values = self
        if not self.shape[dim]:
            raise ValueError("there is no largest of no elements")
        shape = [1] * self.dim()
        shape[dim] = -1
        indices = torch.arange(self.shape[dim]).view(shape).expand(self.shape)
        indices = self._of(self._graph.array(indices.numpy()))
        before = (slice(None),) * (dim % self.dim())
        while (n := values.shape[dim]) > 1:
            left, right = (*before, slice(0, n - n % 2, 2)), (*before, slice(1, n, 2))
            rest = (*before, slice(n - n % 2, n))
            difference = values[right] - values[left]
            right_wins = difference._above_zero()  # on a tie the first stays
            values = [values[left] + right_wins * difference, values[rest]]
            indices = [
                indices[left] + right_wins * (indices[right] - indices[left]), indices[rest]
            ]  # fmt: skip
            values, indices = (concatenate(pair[: 1 + n % 2], dim) for pair in (values, indices))
        return values, indices

    def _extreme(self, which, dim, keepdim):
        if dim is None:
            return self.flatten()._extreme(which, 0, False)
        extreme = self._tournament(dim % self.dim())[which]
        return extreme if keepdim else extreme.squeeze(dim)

    def max(self, dim=None, keepdim=False):
        """The largest element, of all or along `dim`; values alone, as in syft."""
        return self._extreme(0, dim, keepdim)

    def argmax(self, dim=None, keepdim=False):
        """The index of the largest element, the first of equal ones."""
        return self._extreme(1, dim, keepdim)

    def min(self, dim=None, keepdim=False):
        """The smallest element."""
        return self.neg().max(dim, keepdim).neg()

    def argmin(self, dim=None, keepdim=False):
        """The index of the smallest element, the first of equal ones."""
        return self.neg().argmax(dim, keepdim)

    @classmethod
    def handle_func_command(cls, command):
        """torch.NAME(tensor, ...): `stack` and `cat`, else the method of that name."""
        name, _, args, kwargs = command
        name = name.rsplit(".", 1)[-1]
        if name == "cat":
            return concatenate(*args, **kwargs)
        if name == "stack":
            tensors, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else 0)
            return concatenate([tensor.unsqueeze(dim) for tensor in tensors], dim)
        return getattr(args[0], name)(*args[1:], **kwargs)


def concatenate(tensors, dim=0):
    """semi2k tensors one after the other along `dim`."""
    first = tensors[0]
    nodes = [first._operand(tensor) for tensor in tensors]
    return first._of(first._graph.concatenated(nodes, dim % first.dim()))


def _axes(dim, n):
    if dim is None:
        return tuple(range(n))
    return tuple(axis % n for axis in (dim if isinstance(dim, (tuple, list)) else (dim,)))


def refuse_overflow(values):
    """Raise OverflowError where an integer is -2^63, which is what a float beyond becomes."""
    if (values == -(2**63)).any():
        raise OverflowError("a value is too large to be shared, use fewer digits")


def _index(index):
    """An index in the form that a program carries: see `program.MOVES`.

    Raises:
        TypeError: it is boolean, or a tensor or list of more than one dimension.
    """
    if isinstance(index, slice):
        return ("slice", *map(_integer, (index.start, index.stop, index.step)))
    if index is Ellipsis:
        return "..."
    if isinstance(index, (torch.Tensor, np.ndarray)):
        index = index.tolist()
    return ("list", *map(_integer, index)) if isinstance(index, list) else _integer(index)


def _integer(index):
    """None, or a number as Python's int: no other goes into a message."""
    if index is None:
        return None
    if isinstance(index, (bool, np.bool_)) or not hasattr(index, "__index__"):
        raise TypeError(f"semi2k is indexed by integers, slices and lists of them, not {index!r}")
    return operator.index(index)


def _described(other):
    if isinstance(other, AdditiveSharingTensor):
        return f"with tensors of protocol {other.protocol}"
    return f"a {type(other).__name__}"


def semi2k_tensor_in(chain):
    """The semi2k tensor at the end of a chain of syft's tensors, or None."""
    while hasattr(chain, "child") and not isinstance(chain, Semi2kTensor):
        chain = chain.child
    return chain if isinstance(chain, Semi2kTensor) else None
