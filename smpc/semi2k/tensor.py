"""Binds `semi2k` to syft: `.share(..., protocol="semi2k")` and the tensors that come of it.

`install()` is called once, before the workers are made. What it changes in syft stands there, each
change with its reason; the rest is a subclass of AdditiveSharingTensor.
"""

import ctypes
import functools
import itertools
import math
import platform
from fractions import Fraction

import numpy as np
import syft
import torch
from syft.frameworks.torch.mpc.primitives import PrimitiveStorage
from syft.frameworks.torch.tensors.interpreters import gradients
from syft.generic import id_provider
from syft.generic.abstract.tensor import AbstractTensor
from syft.generic.frameworks.hook import hook_args
from syft.generic.pointers.pointer_tensor import PointerTensor

from smpc import compat
from smpc.semi2k.rounds import Session

AdditiveSharingTensor = syft.AdditiveSharingTensor
FixedPrecisionTensor = syft.FixedPrecisionTensor
GRADIENT_DIGITS = 6  # of fixed precision, that a backward pass keeps at least
MIXED_PROTOCOLS = "semi2k tensors and tensors of another protocol cannot be mixed"


class Semi2kTensor(AdditiveSharingTensor):
    """Shares over Z_2^64 between two workers, computed with lazily.

    An operation makes a node of the session's graph; the workers compute when a value is revealed.
    Values are read as signed; a product is right as long as it stays within ±2^62, before the
    division that fixed precision makes of it. Where a quotient is multiplied by a public number, or
    a backward pass is made, a little less is left: see `Graph.LARGEST_NUMERATOR` and `Graph.guard`.

    Attributes:
        session: the `Session` of its parties, and `node`, the value in it; both None until
            `share_secret` has shared `child`.
    """

    _node = None  # also where __init__ raises

    def __init__(
        self, shares=None, owner=None, id=None, field=None, dtype=None, crypto_provider=None,
        protocol="semi2k", session=None, node=None, **kwargs,
    ):  # fmt: skip
        if shares is not None or field not in (None, 2**64) or dtype not in (None, "long", "int64"):
            raise ValueError("semi2k shares 64-bit integers: leave out field, dtype and shares")
        AbstractTensor.__init__(self, id=id, owner=owner, **kwargs)
        self.field, self.dtype, self.torch_dtype = 2**64, "long", torch.int64
        self.crypto_provider, self.protocol = crypto_provider, protocol
        self._plain, self._node, self.session = None, None, session
        if node is not None:
            self.node = session.note(node)

    def __del__(self):
        self.node = None

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
            for worker in self.session.workers
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
        """The two workers."""
        return list(self.session.workers)

    def __str__(self):
        if self.node.pending:
            self.session.compute([self.node])
        return super().__str__().replace(type(self).__name__, "AdditiveSharingTensor", 1)

    def share_secret(self, *owners):
        """Share `child`, an integer tensor, between two workers.

        Raises:
            ValueError: there are not two workers, or no third party as crypto provider.
            OverflowError: see `refuse_overflow`.
        """
        refuse_overflow(self._plain)
        self.session = Session.between(owners, self.crypto_provider)
        self.node = self.session.share(self._plain.long().numpy())
        self._plain = None
        return self

    def get(self):
        """Reveal the value: an int64 tensor."""
        return torch.from_numpy(np.array(self.session.reveal(self.node)))

    # ---- making tensors of nodes and nodes of operands

    def _of(self, node):
        return Semi2kTensor(crypto_provider=self.crypto_provider, session=self.session, node=node)

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
        divisor = self._operand(divisor)
        if divisor.op != "constant":
            raise TypeError("semi2k divides by one public number")
        (value,) = divisor.params
        if value == 0:
            raise ZeroDivisionError("division of a semi2k tensor by 0")
        if abs(value) > self._graph.LARGEST_DIVISOR:
            raise OverflowError("semi2k divides by numbers within ±2^62")
        return self._of(self._graph.scaled(self.node, 1 / value))

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
        if self.node.op in ("constant", "public"):
            return self._of(self.node)
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
        node = self.node
        if node.op in ("constant", "public"):
            return self._of(self._graph.array(np.int64(self.session.reveal(node) > 0)))
        return self._of(self._graph.node("above_zero", (node,), (), node.shape))

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
    dim = dim % first.dim()
    nodes = tuple(first._operand(tensor) for tensor in tensors)
    shape = list(first.shape)
    shape[dim] = sum(node.shape[dim] for node in nodes)
    return first._of(first._graph.node("cat", nodes, (dim,), shape))


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
        return ("slice", index.start, index.stop, index.step)
    if index is Ellipsis:
        return "..."
    if isinstance(index, torch.Tensor):
        index = index.tolist()
    for i in index if isinstance(index, list) else [index]:
        if i is not None and (isinstance(i, bool) or not isinstance(i, (int, np.integer))):
            raise TypeError(f"semi2k is indexed by integers, slices and lists of them, not {i!r}")
    return ("list", *index) if isinstance(index, list) else index


def _described(other):
    if isinstance(other, AdditiveSharingTensor):
        return f"with tensors of protocol {other.protocol}"
    return f"a {type(other).__name__}"


# ---- What is changed in syft ---------------------------------------------------------------------


def install():
    """Make `protocol="semi2k"` known to syft. Call it after `TorchHook` and before the workers are
    made. Idempotent."""
    if getattr(AdditiveSharingTensor, "_semi2k_installed", False):
        return
    AdditiveSharingTensor._semi2k_installed = True
    PrimitiveStorage.register_component("semi2k", dict)  # a worker's ends, by session
    syft.local_worker.crypto_store.semi2k = {}  # the orchestrator's; it was made before
    hook_args.default_register_tensor(Semi2kTensor)
    make_semi2k_tensors()
    refuse_what_is_not_overridden()
    refuse_other_protocols()
    check_fixed_precision()
    give_reshape_its_gradient()
    guard_gradients()
    finish_updates()
    number_ids()
    keep_freed_memory()


def counters():
    """A copy of the `Counters` of the only session there is, or None if there is none."""
    sessions = list(syft.local_worker.crypto_store.semi2k.values())
    return sessions[0].network.counters.copy() if len(sessions) == 1 else None


def save_shares(chains, folder, about, keep):
    """Have the workers write the shares of parameters to files of their own.

    Args:
        chains: parameters that are shared by `semi2k`, all between the same parties.
        folder: a pathlib.Path; each worker has a folder of its own in it.
        about: a dict that says which run and step this is.
        keep: the step whose files are to stay beside the new ones, or None.
    """
    tensors = [_semi2k_tensor_in(chain) for chain in chains]
    tensors[0].session.save([tensor.node for tensor in tensors], folder, about, keep)


def load_shares(chains, folder, about):
    """Give parameters the values whose shares the workers find in the files of `save_shares`.

    Raises:
        CheckpointError: a file is missing, damaged, or of another party, run, step or model.
    """
    tensors = [_semi2k_tensor_in(chain) for chain in chains]
    nodes = tensors[0].session.load([tensor.node.shape for tensor in tensors], folder, about)
    for tensor, node in zip(tensors, nodes, strict=True):
        tensor.node = node


def make_semi2k_tensors():
    """`AdditiveSharingTensor(protocol="semi2k")` makes the subclass: `.share()` names the class."""

    def new(cls, *args, protocol=None, **kwargs):
        semi2k = cls is AdditiveSharingTensor and protocol == "semi2k"
        return object.__new__(Semi2kTensor if semi2k else cls)

    AdditiveSharingTensor.__new__ = new


def refuse_what_is_not_overridden():
    """What AdditiveSharingTensor inherits or is hooked with works on pointers, one message an
    operation; on a semi2k tensor it raises."""

    def refusal(name):
        def method(self, *args, **kwargs):
            raise NotImplementedError(f"semi2k has no {name}")

        return method

    own = set(AdditiveSharingTensor.__dict__) - {"__new__", "__init__", "__repr__", "__bool__"}
    pass_through = {"copy", "get_class_attributes", "grad", "backward", "torch", "__module__"}
    pass_through |= {"__doc__", "min_value", "max_value", "modulo", "_semi2k_installed"}
    for name in own | set(compat.TENSOR_METHODS):
        if name not in Semi2kTensor.__dict__ and name not in pass_through:
            setattr(Semi2kTensor, name, refusal(name))


def refuse_other_protocols():
    """An operation of another protocol takes any AdditiveSharingTensor for its own."""

    def refuse(tensor):
        raise TypeError(MIXED_PROTOCOLS)

    hook_args.register_forward_func({Semi2kTensor: refuse})
    for name in ("mul", "matmul"):
        native = getattr(AdditiveSharingTensor, name)

        def method(self, other, native=native):
            return refuse(other) if isinstance(other, Semi2kTensor) else native(self, other)

        setattr(AdditiveSharingTensor, name, method)


def check_fixed_precision():
    """FixedPrecisionTensor adds and compares numbers of different precision, compares with an
    integer as if it were already scaled, turns public @ secret into secret @ public, and makes None
    of a number to the power 0. Where a semi2k tensor takes part the first is refused and the others
    are right."""
    comparisons = ("__gt__", "__ge__", "__lt__", "__le__", "eq", "__eq__")
    products = ("matmul", "__matmul__", "mm")
    for name in (
        "add",
        "__add__",
        "__radd__",
        "sub",
        "__sub__",
        "mul_and_div",
        *products,
        *comparisons,
    ):
        native = getattr(FixedPrecisionTensor, name)

        @functools.wraps(native)
        def method(self, other, *args, name=name, native=native, **kwargs):
            children = self.child, getattr(other, "child", None)
            if not any(isinstance(child, Semi2kTensor) for child in children):
                return native(self, other, *args, **kwargs)
            if isinstance(other, FixedPrecisionTensor):
                refuse_mixture(self, other)
                if name in products and not isinstance(self.child, AdditiveSharingTensor):
                    product = FixedPrecisionTensor(owner=self.owner, **self.get_class_attributes())
                    product.child = other.child.rmatmul(self.child)
                    return product.truncate(self.precision_fractional)
            elif name in comparisons:
                other = round(other * self.base**self.precision_fractional)
            return native(self, other, *args, **kwargs)

        setattr(FixedPrecisionTensor, name, method)

    native_pow = FixedPrecisionTensor.pow

    def pow(self, power):
        shared = isinstance(self.child, Semi2kTensor)
        return self * 0 + 1 if shared and power == 0 else native_pow(self, power)

    FixedPrecisionTensor.pow = FixedPrecisionTensor.__pow__ = pow


def refuse_mixture(one, other):
    """Raise where two fixed-precision tensors differ in precision or in protocol."""
    if (one.base, one.precision_fractional) != (other.base, other.precision_fractional):
        raise ValueError(
            f"a precision of {one.precision_fractional} digits and one of "
            f"{other.precision_fractional} cannot be mixed"
        )
    shared = [x.child for x in (one, other) if isinstance(x.child, AdditiveSharingTensor)]
    if len({type(child) for child in shared}) > 1:
        raise TypeError(MIXED_PROTOCOLS)


def give_reshape_its_gradient():
    """syft's ReshapeBackward never notes the tensor whose shape it goes back to."""

    class ReshapeBackward(gradients.ReshapeBackward):
        def __init__(self, self_, *dims):
            super().__init__(self_, *dims)
            self.self_ = self_

    gradients.ReshapeBackward = ReshapeBackward


def _semi2k_tensor_in(chain):
    """The semi2k tensor at the end of a chain of syft's tensors, or None."""
    while hasattr(chain, "child") and not isinstance(chain, Semi2kTensor):
        chain = chain.child
    return chain if isinstance(chain, Semi2kTensor) else None


def guard_gradients():
    """Fixed precision rounds every gradient on the way back to its own unit, and gradients are
    small: with 3 digits that, and not the noise of the batches, decides where an epoch ends. While
    a backward pass is made, what is a factor or summed up keeps at least `GRADIENT_DIGITS`."""
    native_backward = syft.AutogradTensor.backward

    def backward(self, grad=None):
        tensor = _semi2k_tensor_in(self)
        if tensor is None:
            return native_backward(self, grad)
        number = self.child
        graph = tensor.session.graph
        graph.guard = number.base ** max(0, GRADIENT_DIGITS - number.precision_fractional)
        try:
            return native_backward(self, grad)
        finally:
            graph.guard = 1

    syft.AutogradTensor.backward = backward


def finish_updates():
    """An update of the weights is computed with the loss that is revealed next, or else before the
    next update, not with the first value that happens to depend on it. And most updates are smaller
    than a unit of the weights: what rounding drops of one is added to the next."""
    native_step = torch.optim.SGD.step

    def shared(optimizer):
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if (weights := _semi2k_tensor_in(parameter)) is not None:
                    yield parameter, weights

    def step(self, closure=None):
        if last := [weights for _, weights in shared(self) if weights.node.pending]:
            last[0].session.compute([weights.node for weights in last])
        result = native_step(self, closure)
        for parameter, weights in shared(self):
            keep_remainder(weights, self.state[parameter])
            weights.session.want(weights.node)
        return result

    torch.optim.SGD.step = step


def keep_remainder(weights, state):
    """Make w - x/d, just written, w - q with q = (x + r)/d rounded, r = what the last step dropped;
    and note x + r - d q for the next. So all updates together are off by less than a unit."""
    graph, node = weights._graph, weights.node
    if node.op != "sub" or not node.pending or not (quotient := graph.quotient(node.inputs[1])):
        return  # nothing is rounded
    numerator, factor = quotient
    d = factor.denominator
    x = graph.scaled(numerator, factor.numerator)
    if "remainder" in state:
        remainder, its_d = state["remainder"]
        x = graph.added("add", x, graph.scaled(remainder.node, Fraction(d, its_d)))
    q = graph.scaled(x, Fraction(1, d))
    times_d = graph.node("scaled", (q,), (Fraction(d),), q.shape)  # not simplified: x/d*d is not x
    weights.node = graph.added("sub", node.inputs[0], q)
    remainder = weights._of(graph.added("sub", x, times_d))
    weights.session.want(remainder.node)
    state["remainder"] = remainder, d


def number_ids():
    """syft draws ids at random, and remembers each so as to give it once: 16 MB for every epoch of
    MNIST. Numbers from a random one on come once by themselves."""

    class Forgotten(set):
        def add(self, id):
            """Do nothing."""

    id_provider.create_random_id = itertools.count(id_provider.create_random_id()).__next__
    syft.ID_PROVIDER.generated = Forgotten(syft.ID_PROVIDER.generated)


def keep_freed_memory():
    """Not a change in syft: have glibc reuse the memory of freed arrays, where by default it gives
    back to the system, and takes anew page by page, what every round frees and needs again."""
    if platform.libc_ver()[0] == "glibc":
        mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 1 << 28)
        libc.mallopt(trim_threshold, 1 << 30)
