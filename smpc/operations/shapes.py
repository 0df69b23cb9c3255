"""Elements moved about, taken and put together. Nothing here is sent, and nothing rounded.

Range: all of the ring, exactly.
"""

import math
import operator

import numpy as np
import torch

from smpc.operations import number
from smpc.operations.number import Number
from smpc.operations.registry import axes_of, axis_of, operand, operation

ALL = ("slice", None, None, None)
LISTS = bool, list, torch.Tensor, np.ndarray, range  # indices of which `_places` makes places


def _sizes(sizes):
    """(2, 3) or ((2, 3),) as ints."""
    sizes = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    return tuple(operator.index(n) for n in sizes)


@operation("reshape")
def view(x, *shape):
    """In another shape."""
    return number.reshape(x, _sizes(shape))


@operation("reshape_as")
def view_as(x, other):
    """In the shape of `other`."""
    return number.reshape(x, tuple(other.shape))


@operation()
def flatten(x, start_dim=0, end_dim=-1):
    """With some neighbouring dimensions made one."""
    start, end = axis_of(x, start_dim), axis_of(x, end_dim)
    if start > end:
        raise ValueError(f"flatten from dimension {start_dim} to {end_dim}")
    middle = math.prod(x.shape[start : end + 1])
    return number.reshape(x, (*x.shape[:start], middle, *x.shape[end + 1 :]))


@operation()
def unflatten(x, dim, sizes):
    """With a dimension made several."""
    axis = axis_of(x, dim)
    return number.reshape(x, (*x.shape[:axis], *sizes, *x.shape[axis + 1 :]))


@operation()
def squeeze(x, dim=None):
    """Without these dimensions, or all, where their size is 1."""
    axes = axes_of(x, dim)
    return number.reshape(x, [n for i, n in enumerate(x.shape) if i not in axes or n != 1])


@operation()
def unsqueeze(x, dim):
    """With a dimension of size 1 before `dim`."""
    if not -x.dim - 1 <= dim <= x.dim:
        raise IndexError(f"there is no place {dim} for a dimension in a tensor of {x.dim}")
    shape = list(x.shape)
    shape.insert(dim % (x.dim + 1), 1)
    return number.reshape(x, shape)


@operation()
def permute(x, *dims):
    """With its dimensions in another order."""
    axes = tuple(axis_of(x, dim) for dim in _sizes(dims))
    if sorted(axes) != list(range(x.dim)):
        raise ValueError(f"permute to {dims} of a tensor of {x.dim} dimensions")
    return number.permute(x, axes)


@operation("swapaxes", "swapdims")
def transpose(x, dim0, dim1):
    """With two dimensions exchanged."""
    axes, one, other = list(range(x.dim)), axis_of(x, dim0), axis_of(x, dim1)
    if not axes:
        return x
    axes[one], axes[other] = axes[other], axes[one]
    return number.permute(x, axes)


@operation("T")
def t(x):
    """The transpose, of at most two dimensions."""
    if x.dim > 2:
        raise ValueError(f"t() of a tensor of {x.dim} dimensions: use transpose")
    return number.permute(x, tuple(reversed(range(x.dim))))


@operation("mT")
def transposed(x):
    """With its last two dimensions exchanged."""
    if x.dim < 2:
        raise ValueError(f"mT of a tensor of {x.dim} dimensions")
    return number.transposed(x)


@operation("moveaxis")
def movedim(x, source, destination):
    """With dimensions moved elsewhere."""
    numbered = np.broadcast_to(np.empty(()), tuple(range(x.dim)))  # its shape tells the order
    return number.permute(x, np.moveaxis(numbered, source, destination).shape)


@operation("broadcast_to")
def expand(x, *sizes):
    """Broadcast to a shape, -1 keeping a dimension as it is."""
    sizes = _sizes(sizes)
    if len(sizes) < x.dim:
        raise ValueError(f"expand {sizes} of a tensor of {x.dim} dimensions")
    old = (*[1] * (len(sizes) - x.dim), *x.shape)
    return number.expand(x, [o if n == -1 else n for n, o in zip(sizes, old, strict=True)])


@operation()
def expand_as(x, other):
    """Broadcast to the shape of `other`."""
    return number.expand(x, tuple(other.shape))


@operation("tile")
def repeat(x, *sizes):
    """Itself so many times, along each dimension."""
    sizes = _sizes(sizes)
    if len(sizes) < x.dim:
        raise ValueError(f"repeat {sizes} of a tensor of {x.dim} dimensions")
    shape = (*[1] * (len(sizes) - x.dim), *x.shape)
    apart = number.reshape(x, [n for size in shape for n in (1, size)])
    apart = number.expand(apart, [n for pair in zip(sizes, shape, strict=True) for n in pair])
    return number.reshape(apart, [a * b for a, b in zip(sizes, shape, strict=True)])


# ---- Parts ---------------------------------------------------------------------------------------


@operation("__getitem__")
def getitem(x, key):
    """A part of it, by whatever indices torch takes; they are public.

    Raises:
        TypeError: an index is secret, or none at all.
        IndexError: it is out of range.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(part, LISTS) for part in parts):
        return _taken(x, _places(x, key))
    return number.index(x, tuple(map(_basic, parts)))


def _taken(x, places):
    """The elements at places, an array, of the flattened x."""
    taken = number.index(number.reshape(x, (-1,)), (("list", *places.ravel().tolist()),))
    return number.reshape(taken, places.shape)


def _basic(part):
    """An index that is none of LISTS, in the form that a program carries."""
    if isinstance(part, slice):
        if part.step is not None and part.step <= 0:
            raise ValueError("a slice has a step above 0")
        ends = (
            None if n is None else operator.index(n) for n in (part.start, part.stop, part.step)
        )
        return ("slice", *ends)
    if part is Ellipsis:
        return "..."
    return None if part is None else operator.index(_known(part))


def _known(index):
    """An index, if it is public."""
    if isinstance(index, Number):
        raise TypeError("a secret index: semi2k takes public ones; multiply by a one-hot row")
    return index


def _places(x, key):
    """Where, in the flattened x, torch's `x[key]` is found."""

    def public(part):
        part = _known(part)
        return torch.as_tensor(part) if isinstance(part, (list, range, np.ndarray)) else part

    key = tuple(map(public, key)) if isinstance(key, tuple) else public(key)
    return torch.arange(math.prod(x.shape)).reshape(x.shape)[key].numpy()


@operation("__setitem__")
def setitem(x, key, value):
    """x with another value, public or secret, in the part that an index gives; the last of those
    for one place."""
    places = _places(x, key)
    value = number.expand(operand(x, value), places.shape)
    last = {place: i for i, place in enumerate(places.ravel().tolist())}
    there, taken = (("list", *last),), (("list", *last.values()),)
    flat = number.reshape(x, (-1,))
    new = number.index(number.reshape(value, (-1,)), taken)
    change = number.subtract(new, number.index(flat, there))
    changed = number.add(flat, number.place(change, flat.shape, there))
    return number.reshape(changed, x.shape)


def _axis(x, dim):
    """A dimension as torch counts it, from the first, of a tensor that has parts."""
    if not x.dim:
        raise IndexError("a single number has no dimension to take parts of")
    return axis_of(x, dim)


def along(x, axis, part):
    """x with a program's index at one axis."""
    return number.index(x, (*[ALL] * axis, part))


@operation()
def select(x, dim, index):
    """One place of a dimension, which goes."""
    return along(x, _axis(x, dim), operator.index(index))


@operation()
def narrow(x, dim, start, length):
    """Some places of a dimension."""
    axis = _axis(x, dim)
    if not 0 <= start <= start + length <= x.shape[axis]:
        raise IndexError(f"there are no {length} from {start} of {x.shape[axis]}")
    return along(x, axis, ("slice", start, start + length, None))


@operation()
def index_select(x, dim, index):
    """Some places of a dimension, by a public list of them."""
    return along(x, _axis(x, dim), ("list", *torch.as_tensor(_known(index)).tolist()))


@operation()
def gather(x, dim, index):
    """Of each line along a dimension the elements at public places."""
    places = torch.arange(math.prod(x.shape)).reshape(x.shape).gather(dim, _known(index)).numpy()
    return _taken(x, places)


@operation()
def flip(x, *dims):
    """Backwards along these dimensions."""
    for axis in axes_of(x, _sizes(dims)):
        x = along(x, axis, ("list", *reversed(range(x.shape[axis]))))
    return x


@operation()
def split(x, split_size_or_sections, dim=0):
    """In parts of a size, or of several, along a dimension: a tuple."""
    axis, sizes = _axis(x, dim), split_size_or_sections
    n = x.shape[axis]
    if isinstance(sizes, int):
        sizes = [min(sizes, n - start) for start in range(0, n, sizes)] or [0]
    if sum(sizes) != n:
        raise ValueError(f"parts of {list(sizes)} are not {n}")
    ends = np.cumsum(sizes).tolist()
    return tuple(
        along(x, axis, ("slice", end - size, end, None))
        for size, end in zip(sizes, ends, strict=True)
    )


@operation()
def chunk(x, chunks, dim=0):
    """In so many parts, or fewer, along a dimension: a tuple."""
    n = x.shape[_axis(x, dim)]
    return split(x, -(-n // chunks) if n else [0] * chunks, dim)


@operation()
def unbind(x, dim=0):
    """Each place of a dimension: a tuple."""
    axis = _axis(x, dim)
    return tuple(along(x, axis, place) for place in range(x.shape[axis]))


@operation()
def diag(x):
    """The diagonal of a matrix; of a vector, a matrix with it."""
    if x.dim == 1:
        n = x.shape[0]
        square = number.place(x, (n * n,), (("slice", None, None, n + 1),))
        return number.reshape(square, (n, n))
    if x.dim != 2:
        raise ValueError(f"the diagonal of a tensor of shape {x.shape}")
    return getitem(x, (range(min(x.shape)),) * 2)


@operation()
def tril(x, diagonal=0):
    """The lower triangle, and zeros."""
    return _masked(x, torch.ones(x.shape[-2:]).tril(diagonal))


@operation()
def triu(x, diagonal=0):
    """The upper triangle, and zeros."""
    return _masked(x, torch.ones(x.shape[-2:]).triu(diagonal))


def _masked(x, mask):
    return number.multiply(x, x.public(mask.numpy()))


# ---- Put together --------------------------------------------------------------------------------


@operation("concat", "concatenate")
def cat(tensors, dim=0):
    """Tensors one after the other along a dimension."""
    first = next(x for x in tensors if isinstance(x, Number))
    numbers = [operand(first, x) for x in tensors]
    axis = axis_of(first, dim)
    if len({(*x.shape[:axis], *x.shape[axis + 1 :]) for x in numbers}) > 1:
        raise ValueError(f"cat along {dim} of shapes {', '.join(str(x.shape) for x in numbers)}")
    return number.concatenate(numbers, axis)


@operation()
def stack(tensors, dim=0):
    """Tensors of one shape along a new dimension."""
    first = next(x for x in tensors if isinstance(x, Number))
    return cat([unsqueeze(operand(first, x), dim) for x in tensors], dim % (first.dim + 1))


@operation()
def pad(x, pad, mode="constant", value=None):
    """With a public number around it, by so many places before and behind: of the last dimension
    first, as torch has it."""
    if mode != "constant":
        raise TypeError(f"semi2k pads with a number, not by {mode}")
    sides = [(0, 0)] * (x.dim - len(pad) // 2) + list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    if min(pad, default=0) < 0:
        raise ValueError("padding below 0: take a part in its place")
    shape = tuple(a + n + b for n, (a, b) in zip(x.shape, sides, strict=True))
    inside = tuple(("slice", a, a + n, None) for n, (a, _) in zip(x.shape, sides, strict=True))
    padded = number.place(x, shape, inside)
    if not value:
        return padded
    around = torch.ones(shape)
    around[tuple(slice(*ends) for _, *ends in inside)] = 0
    return number.add(padded, number.scale(x.public(around.numpy()), value))


# ---- Itself --------------------------------------------------------------------------------------


@operation("copy")
def clone(x, *, memory_format=None):
    """The same."""
    return number.scale(x, 1)


@operation()
def contiguous(x, memory_format=None):
    """Itself: what is shared has no layout."""
    return x


@operation()
def refresh(x):
    """The same in fresh shares: 8 bytes dealt for an element."""
    return number.refresh(x)
