"""What torch calls on a tensor that semi2k shares, computed by `smpc.operations` or refused.

syft hangs its chain of tensors on an empty tensor of torch's, and hooks torch's methods and
functions, each layer keeping by name how the arguments of the first call were laid out. Whatever it
does not hook works on the empty tensor, without a word. So the wrapper of a chain that ends in a
`Semi2kTensor` becomes a subclass of torch's tensor, and there is one way in: `compute`.
"""

import functools
import inspect
import weakref

import syft
import torch

from smpc import compat
from smpc.operations import OPERATIONS, Leaf, Number, backward
from smpc.operations.number import add
from smpc.operations.registry import operand
from smpc.semi2k.tensor import (
    MIXED_PROTOCOLS,
    AdditiveSharingTensor,
    Semi2kTensor,
    semi2k_tensor_in,
)

AutogradTensor, FixedPrecisionTensor = syft.AutogradTensor, syft.FixedPrecisionTensor
DOCUMENT = "docs/operations.md"
# What torch may ask of the empty tensor itself, of which nothing depends on what is shared.
ABOUT_THE_WRAPPER = {
    "_backward_hooks", "_is_view", "_post_accumulate_grad_hooks", "device", "dtype", "is_complex",
    "is_cpu", "is_cuda", "is_floating_point", "is_meta", "is_mkldnn", "is_mps", "is_nested",
    "is_quantized", "is_sparse", "is_sparse_csr", "is_xla", "is_xpu", "layout", "names", "type",
}  # fmt: skip
FORGOTTEN = object()  # in place of the gradient of an input that nobody has read
_UNREAD = weakref.WeakValueDictionary()  # inputs that have one, by id()
REVEALING = "item tolist numpy __bool__ __float__ __int__ __index__ __array__ __contains__".split()


class Semi2kWrapper(torch.Tensor):
    """The wrapper of a chain that ends in a `Semi2kTensor`."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        """Whatever of torch is called on one and is not hooked by syft."""
        name = getattr(function, "__name__", str(function))
        if name == "__get__":  # of an attribute
            name = getattr(function.__self__, "fget", function.__self__).__name__
        if name in ABOUT_THE_WRAPPER:
            return super().__torch_function__(function, types, args, kwargs or {})
        return compute(name, args, kwargs or {})

    @classmethod
    def handle_func_command(cls, command):
        """A function of torch's that syft hooks."""
        name, _, args, kwargs = command
        return compute(name.rsplit(".", 1)[-1], args, kwargs)

    # ---- what it is

    shape = property(lambda self: semi2k_tensor_in(self).shape)
    ndim = property(lambda self: len(self.shape))
    is_leaf = property(lambda self: self.grad_fn is None)
    grad_fn = property(lambda self: getattr(_autograd(self), "grad_fn", None))
    retains_grad = False

    def dim(self):
        """How many dimensions."""
        return len(self.shape)

    ndimension = dim

    def size(self, dim=None):
        """The shape, or the size of one dimension."""
        return self.shape if dim is None else self.shape[dim]

    def numel(self):
        """How many elements."""
        return self.shape.numel()

    nelement = numel

    def __len__(self):
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self):
        return iter(self.unbind(0))

    def __format__(self, spec):
        return str(self)

    __hash__ = object.__hash__

    # ---- gradients

    @property
    def requires_grad(self):
        """Whether what is made of it notes how."""
        chain = _autograd(self)
        return chain is not None and (chain.grad_fn is not None or chain.requires_grad)

    @requires_grad.setter
    def requires_grad(self, requires):
        if _autograd(self) is None:
            self.child = AutogradTensor(data=self.child, requires_grad=requires)
        _autograd(self).requires_grad = requires

    def requires_grad_(self, requires_grad=True):
        """Set whether what is made of it notes how."""
        self.requires_grad = requires_grad
        return self

    @property
    def grad(self):
        """Its gradient, shared, or None.

        Raises:
            RuntimeError: it is of an input, and was not read before the weights changed.
        """
        _UNREAD.pop(id(self), None)
        grad = getattr(_autograd(self), "grad", None)
        if grad is FORGOTTEN:
            raise RuntimeError(
                "the gradient of an input is kept until optimizer.step(): read .grad before"
            )
        return grad

    @grad.setter
    def grad(self, grad):
        if _autograd(self) is None:
            raise RuntimeError("this tensor was shared without requires_grad=True")
        _UNREAD.pop(id(self), None)
        _autograd(self).grad = grad

    def backward(self, gradient=None, retain_graph=None, create_graph=False, inputs=None):
        """Give what this was made of its gradients, each a tensor that is shared; what is computed
        of them keeps six digits where it must be rounded."""
        if create_graph or inputs is not None:
            raise NotImplementedError("semi2k has no gradients of gradients, nor of some inputs")
        number = number_in(self)
        if number.step is None:
            raise RuntimeError("this tensor was not made of any that requires a gradient")
        if gradient is None:
            gradient = number.full(1, number.shape)
        elif isinstance(gradient, Semi2kWrapper):
            gradient = number_in(gradient).detached()
        else:
            gradient = number.public(torch.as_tensor(gradient).numpy())
        if gradient.shape != number.shape:
            raise ValueError(f"a gradient of shape {gradient.shape} for one of {number.shape}")
        backward(number, gradient)

    def detach(self):
        """The same shared tensor, of which no gradient is wanted."""
        chain = self.child.child if _autograd(self) is not None else self.child
        return wrapped(chain)

    data = property(detach)

    @data.setter
    def data(self, other):
        if semi2k_tensor_in(other) is None:
            raise TypeError("a secret tensor takes the data of another one that is shared")
        semi2k_tensor_in(self).node = semi2k_tensor_in(other).node

    # ---- values

    def where(self, condition, other):
        """torch's function has the condition first."""
        return compute("where", (condition, self, other), {})

    def get(self, inplace=False):
        """Reveal it: a public tensor in fixed precision, or of integers. It stays shared, but where
        it is to be `inplace`."""
        public = semi2k_tensor_in(self).get()
        if (fixed := _fixed(self)) is not None:
            number = FixedPrecisionTensor(**fixed.get_class_attributes())
            public = number.on(public, wrap=False).wrap(register=False)
        if not inplace:
            return public
        is_parameter = isinstance(self, torch.nn.Parameter)
        self.__class__ = torch.nn.Parameter if is_parameter else torch.Tensor
        if hasattr(public, "child"):
            self.child = public.child
        else:
            del self.child
            self.is_wrapper = False
            self.set_(public)
        return self

    def get_(self):
        """Reveal it in place."""
        return self.get(inplace=True)

    def type(self, dtype=None):
        """The empty tensor's; or itself, if `dtype` is one of floats: a secret number has one."""
        return self.native_type() if dtype is None else self.to(dtype)

    def to(self, *args, **kwargs):
        """Itself, unless it is to be rounded to integers."""
        dtypes = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.dtype)]
        if _fixed(self) is not None and not all(dtype.is_floating_point for dtype in dtypes):
            raise NotImplementedError(f"semi2k rounds no number to an integer: see {DOCUMENT}")
        return self

    double = float = half = cpu = lambda self, *args, **kwargs: self
    long = int = functools.partialmethod(to, torch.int64)


class Semi2kParameter(Semi2kWrapper, torch.nn.Parameter):
    """Of a parameter."""


def install():
    """Make the changes."""
    for name in {*compat.TENSOR_METHODS, *OPERATIONS, *REVEALING, "bool", "set_"}:
        if name not in Semi2kWrapper.__dict__ and (hasattr(torch.Tensor, name)):
            setattr(Semi2kWrapper, name, _method(name))
    for name in ("T", "mT"):
        setattr(Semi2kWrapper, name, property(functools.partial(compute_one, name)))
    _look_at_the_other_operand()
    _make_wrappers()
    _refuse_copies()


def _method(name):
    def method(self, *args, **kwargs):
        return compute(name, (self, *args), kwargs)

    method.__name__ = name
    return method


def compute_one(name, tensor):
    """What torch calls by a name, of one tensor."""
    return compute(name, (tensor,), {})


def _look_at_the_other_operand():
    """Where a method or function is called on a plain tensor, or on a public one in fixed
    precision, and another argument is shared, it is computed here, too."""

    def is_shared(value):
        return isinstance(value, Semi2kWrapper) or (
            isinstance(value, (tuple, list)) and any(map(is_shared, value))
        )

    def wrap_method(name, native):
        @functools.wraps(native)
        def method(self, *args, **kwargs):
            if any(map(is_shared, (self, *args, *kwargs.values()))):
                own = getattr(Semi2kWrapper, name)  # with the method's arguments
                return own(self, *args, **kwargs)
            return native(self, *args, **kwargs)

        return method

    for name in compat.TENSOR_METHODS:
        if not hasattr(torch.Tensor, name):
            continue
        setattr(torch.Tensor, name, wrap_method(name, getattr(torch.Tensor, name)))
    native = torch.Tensor.handle_func_command

    def handle_func_command(command):
        name, _, args, kwargs = command
        if any(map(is_shared, (*args, *kwargs.values()))):
            return compute(name.rsplit(".", 1)[-1], args, kwargs)
        return native(command)

    torch.Tensor.handle_func_command = staticmethod(handle_func_command)


def _make_wrappers():
    """`.share(..., protocol="semi2k")` makes the subclass."""
    for name in ("share", "share_"):
        native = getattr(torch.Tensor, name)

        @functools.wraps(native)
        def share(self, *args, native=native, **kwargs):
            shared = native(self, *args, **kwargs)
            return as_wrapper(shared) if semi2k_tensor_in(shared) is not None else shared

        setattr(torch.Tensor, name, share)


def _refuse_copies():
    """`torch.tensor(secret)` and `torch.Tensor(secret)` would copy the empty tensor; a parameter of
    a secret tensor is one that is secret."""
    native = torch.tensor

    def refuse(value):
        if isinstance(value, Semi2kWrapper):
            raise TypeError("a new tensor of a secret one: use .clone(), or reveal it")

    @functools.wraps(native)
    def tensor(data, *args, **kwargs):
        refuse(data)
        return native(data, *args, **kwargs)

    def init(self, *args, **kwargs):
        if isinstance(self, torch.nn.Parameter):
            if semi2k_tensor_in(self) is not None:
                as_wrapper(self)
        elif args:
            refuse(args[0])

    torch.tensor, torch.Tensor.__init__ = tensor, init


def as_wrapper(tensor):
    """A wrapper of torch's whose chain ends in a `Semi2kTensor`, as one of this module's."""
    if isinstance(tensor, torch.Tensor):
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        tensor.__class__ = Semi2kParameter if is_parameter else Semi2kWrapper
    return tensor


def wrapped(chain):
    """A new wrapper of a chain."""
    return as_wrapper(chain.wrap(register=False))


# ---- From chains to numbers and back -------------------------------------------------------------


def _autograd(tensor):
    return tensor.child if isinstance(tensor.child, AutogradTensor) else None


def _fixed(tensor):
    """The FixedPrecisionTensor in a chain, or None."""
    while hasattr(tensor, "child"):
        tensor = tensor.child
        if isinstance(tensor, FixedPrecisionTensor):
            return tensor
    return None


def number_in(tensor):
    """The `Number` in a wrapper of this module's."""
    end, chain = semi2k_tensor_in(tensor), _autograd(tensor)
    step = None
    if chain is not None:
        step = chain.grad_fn
        if step is None and chain.requires_grad:
            step = Leaf(functools.partial(_take, tensor))
    return Number(end.session.graph, end.node, _one(tensor), step)


def _one(tensor):
    fixed = _fixed(tensor)
    return 1 if fixed is None else fixed.base**fixed.precision_fractional


def _take(leaf, grad):
    """Add to the gradient of a tensor that was shared with requires_grad=True."""
    chain = _autograd(leaf)
    if chain.grad is FORGOTTEN:
        return
    if chain.grad is not None:
        grad = add(number_in(chain.grad), grad)
    chain.grad = tensor_of(grad.detached(), leaf)
    if not isinstance(leaf, torch.nn.Parameter):
        _UNREAD[id(leaf)] = leaf


def forget_gradients_of_inputs(session):
    """Forget those that nobody has read. The tutorial shares its data with requires_grad=True, and
    never asks: kept, the gradient of each batch would keep the weights that it was made with."""
    for leaf in list(_UNREAD.values()):
        if semi2k_tensor_in(leaf).session is session:
            del _UNREAD[id(leaf)]
            _autograd(leaf).grad = FORGOTTEN


def tensor_of(number, like):
    """A `Number` as a tensor, between the parties of another and in its precision."""
    end = semi2k_tensor_in(like)
    chain = Semi2kTensor(crypto_provider=end.crypto_provider, parties=end.parties, node=number.node)
    if (fixed := _fixed(like)) is not None:
        of_fixed = FixedPrecisionTensor(**fixed.get_class_attributes())
        of_fixed.child = chain
        chain = of_fixed
    if number.step is not None:
        chain = AutogradTensor(data=chain, grad_fn=number.step)
    return wrapped(chain)


def _first_shared(values):
    """The first tensor that is shared among arguments, or None."""
    for value in values:
        if isinstance(value, Semi2kWrapper):
            return value
        if isinstance(value, (tuple, list)) and (found := _first_shared(value)) is not None:
            return found
    return None


def compute(name, args, kwargs):
    """What torch calls by a name, with at least one tensor that is shared among its arguments.

    Raises:
        NotImplementedError: semi2k has no such operation, or not with such an argument.
        TypeError, ValueError, IndexError, OverflowError: an argument is wrong; see the operation.
    """
    like = _first_shared((*args, *kwargs.values()))
    if name in REVEALING:
        raise TypeError(f"{name} of a secret tensor: reveal it with .get()")
    name, in_place = _without_place(name)
    operation, target = OPERATIONS.get(name), args[0] if args else None
    if in_place and not isinstance(target, Semi2kWrapper):
        raise TypeError("a public tensor cannot become a secret one in place")
    if operation is None:
        raise NotImplementedError(f"semi2k has no {name}: what it has is in {DOCUMENT}")
    first = number_in(like)
    args = [_argument(value, first) for value in args]
    kwargs = {key: _argument(value, first) for key, value in kwargs.items()}
    if args and name != "where" and not isinstance(args[0], (Number, tuple, list)):
        args[0] = operand(first, args[0])
    kwargs = _known(name, operation, args, kwargs)
    try:
        result = operation(*args, **kwargs)
    finally:
        _let_go((*args, *kwargs.values()))
    if in_place:
        return _assign(target, result)
    return _answer(result, like)


def _without_place(name):
    """`add` of `add_` or of `__iadd__`; whether it is one of these."""
    if name == "__setitem__" or (name.startswith("__i") and name in OPERATIONS):
        return name, name != "__invert__"
    if name.endswith("_") and name != "copy_" and name[:-1] in OPERATIONS:
        return name[:-1], True
    return name, False


def _known(name, operation, args, kwargs):
    """The arguments that an operation has; what only says how torch is to compute is left out."""
    parameters = inspect.signature(operation).parameters
    for key in [key for key in kwargs if key not in parameters]:
        if kwargs[key] is not None and kwargs[key] is not False and not key.startswith("_"):
            raise NotImplementedError(f"semi2k has no {name} with {key}: see {DOCUMENT}")
        del kwargs[key]
    try:
        inspect.signature(operation).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    return kwargs


def _argument(value, first):
    """An argument as an operation takes it."""
    if isinstance(value, Semi2kWrapper):
        number = number_in(value)
        number.assign = functools.partial(_assign, value)
        return number
    if isinstance(value, (tuple, list)):
        return type(value)(_argument(part, first) for part in value)
    if isinstance(value, FixedPrecisionTensor) or hasattr(value, "child"):
        return _public(value, first)
    return value


def _let_go(values):
    """What was made of a tensor may hold its `Number`, but not the tensor: it may be the same one,
    changed in place, and what nothing refers to must be gone at once, since a program keeps what is
    referred to."""
    for value in values:
        if isinstance(value, Number):
            value.assign = None
        elif isinstance(value, (tuple, list)):
            _let_go(value)


def _public(tensor, first):
    """A public tensor in fixed precision, as a `Number`."""
    end, one = tensor, 1
    while hasattr(end, "child"):
        if isinstance(end, AdditiveSharingTensor):
            raise TypeError(MIXED_PROTOCOLS)
        if isinstance(end, FixedPrecisionTensor):
            one = end.base**end.precision_fractional
        end = end.child
    if not isinstance(end, torch.Tensor):
        raise TypeError(f"semi2k computes with tensors and numbers, not a {type(end).__name__}")
    return Number(first.graph, first.graph.array(end.numpy()), one)


def _answer(result, like):
    if isinstance(result, Number):
        return tensor_of(result, like)
    if isinstance(result, tuple):
        parts = [_answer(part, like) for part in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    return result


def _assign(target, result):
    """Give a shared tensor the value of a `Number` of its shape."""
    if tuple(target.shape) != result.shape:
        raise ValueError(f"a result of shape {result.shape} in place of one of {target.shape}")
    if torch.is_grad_enabled() and target.requires_grad and target.is_leaf:
        raise RuntimeError(
            "a leaf that requires a gradient is changed in place: do it under torch.no_grad()"
        )
    end = semi2k_tensor_in(target)
    end.node = end.session.note(result.node)
    if result.step is not None and _autograd(target) is None:
        target.child = AutogradTensor(data=target.child)
    if torch.is_grad_enabled() and (chain := _autograd(target)) is not None:
        chain.grad_fn, chain.requires_grad = result.step, result.step is not None
    return target
