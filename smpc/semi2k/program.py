"""Programs: instructions on numbered registers, the same for all workers and the crypto provider.

Nothing in a program depends on a secret, and what is public in a computation (numbers, arrays,
indices, shapes) stands in it. Equal computations have equal programs, which are named by their
SHA-256, so that a training step is sent once and then named.

A register holds a value in one of the four forms of `arithmetic`, the same at every worker; at the
provider it holds what the provider knows of it.
"""

import hashlib
import itertools
import math
from typing import NamedTuple

import msgpack
import numpy as np

from smpc.semi2k import dealer, gaussian, noise, ring

# ---- Operations that only move elements about, on shares, masked values and masks alike ----------


def _decoded(spec):
    decoded = {"slice": slice, "list": lambda *i: np.array(i, dtype=np.int64)}
    return tuple(
        Ellipsis if i == "..." else decoded[i[0]](*i[1:]) if isinstance(i, tuple) else i
        for i in spec
    )


def _place(x, shape, spec):
    placed = np.zeros(shape, dtype=x.dtype)
    placed[_decoded(spec)] = x
    return placed


def _unfold(x, size, strides):
    windows = np.lib.stride_tricks.sliding_window_view(x, size, axis=(-2, -1))
    return windows[..., :: strides[0], :: strides[1], :, :]


MOVES = {
    "reshape": lambda x, shape: x.reshape(shape),
    "permute": lambda x, axes: x.transpose(axes),
    "expand": lambda x, shape: np.broadcast_to(x, shape),
    "index": lambda x, spec: x[_decoded(spec)],
    "place": _place,  # where `spec` has no index twice, in zeros of a shape
    "unfold": _unfold,  # (..., H, W) to windows of a size, (..., rows, columns, *size)
}


def _scatter(x, shape, spec):
    sums = np.zeros(shape, dtype=x.dtype)
    np.add.at(sums, _decoded(spec), x)
    return sums


def _fold(x, shape, strides):
    *outer, rows, columns, height, width = x.shape
    sums = np.zeros((*outer, *shape), dtype=x.dtype)
    down, across = (n * stride for n, stride in zip((rows, columns), strides, strict=True))
    for i, j in itertools.product(range(height), range(width)):
        sums[..., i : i + down : strides[0], j : j + across : strides[1]] += x[..., i, j]
    return sums


# Linear operations with public coefficients: each worker does them to its shares, or to delta and
# its share of the mask; the provider to what it knows.
LINEAR = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "scale": lambda x, k: x * np.uint64(k),
    "sum": lambda x, axes, keepdims: x.sum(axis=axes, keepdims=keepdims, dtype=np.uint64),
    "scatter": _scatter,  # the sum of what "index" would take from each place: its adjoint
    "fold": _fold,  # the adjoint of "unfold", for (H, W)
    "cat": lambda *xs_and_axis: np.concatenate(xs_and_axis[:-1], axis=xs_and_axis[-1]),
    "mul_public": lambda x, k: x * k,
    "matmul_public": lambda x, k, left: ring.matmul((k, x) if left else (x, k)),
    **MOVES,
}
# Of the others: how many registers they read and write; see `Instruction`.
OTHERS = {
    "public": (0, 1),
    "add_public": (1, 1),
    "partial": (1, 1),
    "unmask": (1, 1),
    "product": (2, 1),
    "select": (2, 1),
    "complete": (1, 1),
    "noise": (1, 1),
    "unhide": (1, 1),
    "mask": (1, 1),
    "truncate": (1, 2),
    "truncate_exactly": (1, 2),
    "above_zero": (1, 1),
    "reveal": (1, 0),
}
WITH_ARRAY = (
    "public",
    "mul_public",
    "matmul_public",
    "add_public",
)  # a public one: the first two parameters
SIZED = "place", "scatter", "fold", "reshape", "expand"  # the first parameter being the shape
FORMS = ("share", "masked")
_MALFORMED = ArithmeticError, AttributeError, LookupError, TypeError, ValueError
# From the second on, the least that a parameter may be, and the first that it may not.
RANGES = {
    "truncate": ((1, 2**63), (2, 64)),
    "truncate_exactly": ((1, 2**63),),
    "above_zero": ((2, 65),),
    "noise": ((1, gaussian.MOST + 1),),
}
COEFFICIENTS = set(range(noise.UNIT))  # of noise on the noise before it
MOST_WORDS = 2**32  # of a shape, or drawn for a run


class Instruction(NamedTuple):
    """One step of a program.

    Attributes:
        op: a key of `LINEAR`, or of `OTHERS`: the function of that name in `arithmetic` or
            `comparison`; "unmask": shares of a bit or of a masked value; "public": a masked value
            whose mask is 0; "reveal": `complete`, for the orchestrator.
        outs, ins: registers.
        params: numbers, names, raw arrays and tuples of such.
    """

    op: str
    outs: tuple
    ins: tuple
    params: tuple

    def deal(self):
        """The item that the crypto provider deals for it, or None."""
        match self.op:
            case "mask":
                return dealer.Mask(self.params[0])
            case "select":
                return dealer.Selection(*self.params)
            case "complete" | "reveal":
                return dealer.Sharing(*self.params, "m")
            case "unhide":
                return dealer.Sharing(*self.params, "a")
            case "truncate":
                return dealer.Truncation(*self.params)
            case "truncate_exactly":
                return dealer.ExactTruncation(*self.params)
            case "above_zero":
                shape, bits = self.params
                return dealer.Comparison(math.prod(shape), bits)
        return None


class Program:
    """A list of instructions, each after those it depends on.

    Attributes:
        instructions: a tuple of `Instruction`; a raw public array among its parameters has been
            made an array.
        inputs: for each stored value that it starts from: its register, its form and its shape.
        outputs: the registers whose values are stored.
        deals: for each instruction its dealt item or None; `fields`: that item's fields.
        users: for each register, the instructions that read it; `needs`: for each instruction, how
            many of its registers are made by others.
        drawn, corrections: words that a run takes of uniform, and of derived fields.
    """

    def __init__(self, key):
        """Read what `pack_program` made.

        Raises:
            ValueError: it is no program.
        """
        try:
            instructions, inputs, outputs = msgpack.unpackb(key, use_list=False)
            self.instructions = tuple(Instruction(*fields) for fields in instructions)
            self.inputs, self.outputs = inputs, outputs
            self._check()
            self.instructions = tuple(map(_with_array, self.instructions))
            self.deals = [instruction.deal() for instruction in self.instructions]
            self.fields = [deal.fields() if deal else () for deal in self.deals]
        except (*_MALFORMED, msgpack.UnpackException) as error:
            raise ValueError(f"this is no program: {error}") from error
        fields = [field for fields in self.fields for field in fields]
        self.drawn = sum(field.size for field in fields if not field.derived)
        self.corrections = sum(field.size for field in fields if field.derived)
        if self.drawn + self.corrections > MOST_WORDS:
            raise ValueError("this program is too large")
        self.users, self.needs = {}, []
        inputs = {register for register, _, _ in self.inputs}
        for number, instruction in enumerate(self.instructions):
            waits_for = set(instruction.ins) - inputs
            self.needs.append(len(waits_for))
            for register in waits_for:
                self.users.setdefault(register, []).append(number)

    def _check(self):
        """Raise ValueError or TypeError unless every register is written before it is read, and
        once, and sizes are in range."""
        made = set()
        for register, form, shape in self.inputs:
            if form not in FORMS or not is_shape(shape):
                raise ValueError(f"input {register} is {form} of shape {shape}")
            _add(made, register)
        for op, outs, ins, params in self.instructions:
            n_ins, n_outs = OTHERS.get(op, (2 if op in ("add", "sub") else 1, 1))
            if op not in LINEAR and op not in OTHERS:
                raise ValueError(f"no such instruction: {op}")
            if op == "cat":
                n_ins = max(1, len(ins))
            if (len(ins), len(outs)) != (n_ins, n_outs) or not isinstance(params, tuple):
                raise ValueError(f"{op} from {ins} to {outs}")
            if not made.issuperset(ins):
                raise ValueError(f"{op} reads {ins} before they are made")
            sized = (op in OTHERS and op != "product") or op in SIZED
            if sized and params and not is_shape(params[0]):
                raise ValueError(f"{op} of shape {params[0]}")
            if op == "noise" and not (
                len(params) == 4 and isinstance(params[2], tuple) and set(params[2]) <= COEFFICIENTS
            ):
                raise ValueError(f"noise with {params[1:]}")
            for value, (least, end) in zip(params[1:], RANGES.get(op, ()), strict=False):
                if type(value) is not int or not least <= value < end:
                    raise ValueError(f"{op} with {value}")
            for register in outs:
                _add(made, register)
        if not made.issuperset(self.outputs):
            raise ValueError("it stores what it does not make")


def _add(made, register):
    if type(register) is not int or register in made:
        raise ValueError(f"register {register} is made twice")
    made.add(register)


def is_shape(shape):
    """Whether this is a tuple of sizes, of an array that could be."""
    sizes = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    return sizes and math.prod(shape) <= MOST_WORDS


def _with_array(instruction):
    if instruction.op not in WITH_ARRAY:
        return instruction
    shape, raw, *rest = instruction.params
    values = np.frombuffer(raw, dtype=np.uint64)
    array = np.broadcast_to(values[0], shape) if values.size == 1 else values.reshape(shape)
    return instruction._replace(params=(array, *rest))


def pack_program(instructions, inputs, outputs):
    """The bytes that `Program` reads."""
    return msgpack.packb((instructions, inputs, outputs))


def name_of(key):
    """What such bytes are called: the first half of their SHA-256."""
    return hashlib.sha256(key).digest()[:16]
