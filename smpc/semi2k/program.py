"""What is to be computed: a graph of shared values, lowered to a program for the parties.

An operation on shares makes a `Node` and nothing else. When a value is revealed, `lower` turns the
nodes that it needs into a `Program`: a list of instructions on numbered registers, the same for
both workers and for the crypto provider, with nothing in it that depends on a secret. The same
graph gives an equal program, so that a training step is sent once and then named.
"""

import itertools
import math
import weakref
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from smpc.semi2k import comparison, dealer

# ---- Operations that only move elements about, on shares, masked values and masks alike ----------


def _index(x, spec):
    decoded = {"slice": slice, "list": lambda *i: np.array(i, dtype=np.int64)}
    return x[
        tuple(
            Ellipsis if i == "..." else decoded[i[0]](*i[1:]) if isinstance(i, tuple) else i
            for i in spec
        )
    ]


MOVES = {
    "reshape": lambda x, shape: x.reshape(shape),
    "permute": lambda x, axes: x.transpose(axes),
    "expand": lambda x, shape: np.broadcast_to(x, shape),
    "index": _index,
}

# Operations that each worker does to its shares alone.
LOCAL = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "scale": lambda x, k: x * np.uint64(k % 2**64),
    "sum": lambda x, axes, keepdims: x.sum(axis=axes, keepdims=keepdims, dtype=np.uint64),
    "cat": lambda *xs_and_axis: np.concatenate(xs_and_axis[:-1], axis=xs_and_axis[-1]),
    "mul_public": lambda x, k: x * k,
    **MOVES,
}


class Instruction(NamedTuple):
    """One step of a program.

    Attributes:
        op: a key of `LOCAL`, or "move" and "unmask" (of a masked value), "shared", "add_public",
            "add_constant", "matmul_public", "refresh", "mask", "product", "truncate",
            "above_zero", "reveal".
        outs, ins: registers.
        params: numbers, names and tuples of such.
    """

    op: str
    outs: tuple
    ins: tuple
    params: tuple

    def deal(self):
        """The item that the crypto provider deals for it, or None."""
        match self.op:
            case "mask" | "refresh" | "reveal":
                kind = dealer.Mask if self.op == "mask" else dealer.Zero
                return kind(self.params[0])
            case "product":
                return dealer.Product(*self.params)
            case "truncate":
                return dealer.Truncation(*self.params)
            case "above_zero":
                return dealer.Comparison(comparison.lanes(math.prod(self.params[0])))
        return None


class Program:
    """A list of instructions, each after those it depends on.

    Attributes:
        instructions: a tuple of `Instruction`.
        inputs: the registers of the stored shares that it starts from.
        masked_inputs: pairs (register, index of the input): the kept masks that it starts from.
        constants: the registers of the public arrays that come with each run.
        outputs: the registers whose shares the workers store.
        masked_outputs: pairs (register, index of the input): the masks of inputs that they keep.
        deals: for each instruction, its dealt item or None; `fields`: that item's fields and the
            size of each.
        words: 64-bit words that worker1 draws for a run; `corrections`: that worker2 is sent.
        users: for each register, the instructions that read it; `needs`: for each instruction, how
            many of its registers are made by others.
    """

    FIELDS = ("instructions", "inputs", "masked_inputs", "constants", "outputs", "masked_outputs")

    def __init__(self, key):
        for name, value in zip(self.FIELDS, key, strict=True):
            setattr(self, name, value)
        self.instructions = tuple(Instruction(*fields) for fields in self.instructions)
        self.deals = [instruction.deal() for instruction in self.instructions]
        self.fields = [
            [(field, field.size) for field in deal.fields()] if deal else None
            for deal in self.deals
        ]
        sizes = [pair for fields in self.fields if fields for pair in fields]
        self.words = sum(size for _, size in sizes)
        self.corrections = sum(size for field, size in sizes if field.derived)
        self.users = {}
        self.needs = []
        made = {out for instruction in self.instructions for out in instruction.outs}
        for number, instruction in enumerate(self.instructions):
            waits_for = {register for register in instruction.ins if register in made}
            self.needs.append(len(waits_for))
            for register in waits_for:
                self.users.setdefault(register, []).append(number)


# ---- The graph -----------------------------------------------------------------------------------


class Node:
    """A shared value, computed or yet to be.

    Attributes:
        op, inputs, params: how it is computed; inputs are Nodes, empty once it has been.
        shape: a tuple.
        id: its name at the workers once they store shares of it, else None.
        masked: whether the workers keep it opened under a mask.
        handles: how many tensors of the user's refer to it.
        waited: how many times it was left pending when other values were computed.
        on_delete: called with `id` when nothing refers to a stored value any longer.
        number: of all nodes, in the order in which they were made.
    """

    __slots__ = (
        *("op", "inputs", "params", "shape", "id", "masked", "handles", "waited", "on_delete"),
        *("number", "__weakref__"),
    )
    _numbers = itertools.count()

    def __init__(self, op, inputs, params, shape):
        self.number = next(self._numbers)
        self.op, self.inputs, self.params, self.shape = op, inputs, params, tuple(shape)
        self.id, self.masked, self.handles, self.waited, self.on_delete = None, False, 0, 0, None

    def __del__(self):
        if self.id is not None:
            self.on_delete(self.id)

    @property
    def pending(self):
        """Whether it is yet to be computed; what is public never is."""
        return self.id is None and self.op not in ("constant", "public")

    @property
    def size(self):
        """Number of elements."""
        return math.prod(self.shape)


class Graph:
    """Makes nodes: equal operations on equal nodes once, and the cheaper of equivalent ones.

    Attributes:
        pending: the nodes yet to be computed that something still refers to, by number; in this
            order, so that equal computations make equal programs.
        guard: how many times finer than its unit a quotient is rounded where it is a factor or
            summed up; 1 but while a backward pass is made.
    """

    # a / d * k becomes a * (k / d), rounded once in place of twice, unless that narrows the range
    # of a by more than this
    LARGEST_NUMERATOR = 100
    LARGEST_DIVISOR = 2**62  # of `arithmetic.truncate`

    def __init__(self):
        self.guard = 1
        self.pending = weakref.WeakValueDictionary()
        self._made = weakref.WeakValueDictionary()

    def node(self, op, inputs, params, shape):
        """The node for this operation, an earlier one if there is an equal one."""
        key = (op, tuple(map(id, inputs)), params)
        node = self._made.get(key)
        if node is None or not node.pending or node.inputs != inputs:
            # (a computed node has let go of its inputs, whose id() may be another's by now)
            node = self._made[key] = Node(op, inputs, params, shape)
            self.pending[node.number] = node
        return node

    def stored(self, id, shape, on_delete):
        """A node whose shares the workers store already."""
        node = Node("stored", (), (), shape)
        node.id, node.on_delete = id, on_delete
        return node

    def constant(self, value, shape):
        """A public number, the same in every element: an int or a Fraction.

        Raises:
            OverflowError: it is not within ±2^63.
        """
        if abs(value) >= 2**63:
            raise OverflowError("a public number is too large for the ring, use fewer digits")
        return Node("constant", (), (Fraction(value),), shape)

    def array(self, values):
        """A public array of integers, int64 or uint64."""
        values = np.array(values, order="C")
        if values.size and (values == values.flat[0]).all():
            return self.constant(int(values.flat[0]), values.shape)
        return Node("public", (), (values.view(np.uint64),), values.shape)

    def scaled(self, x, factor):
        """x times a public int or Fraction; a fraction rounds to either neighbour, mean error 0."""
        factor = Fraction(factor)
        if x.op == "constant":
            return self.constant(x.params[0] * factor, x.shape)
        if factor == 0:
            return self.constant(0, x.shape)
        if x.op == "scaled" and x.inputs:
            whole = x.params[0] * factor
            exact = x.params[0].denominator == 1
            # (a negation costs nothing, but a second rounding would)
            rounds_once = factor != -1 and abs(whole.numerator) <= self.LARGEST_NUMERATOR
            if exact or (rounds_once and whole.denominator <= self.LARGEST_DIVISOR):
                return self.scaled(x.inputs[0], whole)
        if factor == 1:
            return x
        if x.op in MOVES and x.inputs and x.inputs[0].op == "scaled":
            return self.moved(x.op, self.scaled(x.inputs[0], factor), *x.params)
        return self.node("scaled", (x,), (factor,), x.shape)

    def quotient(self, x):
        """(y, f) where x, or what x is a view of, is yet to be rounded to y f; else None."""
        if x.op in MOVES and x.inputs:
            inner = self.quotient(x.inputs[0])
            return inner and (self.moved(x.op, inner[0], *x.params), inner[1])
        if x.op == "scaled" and x.inputs and x.params[0].denominator > 1:
            return x.inputs[0], x.params[0]
        return None

    def guarded(self, x):
        """(y, g) with x = y / g, where a quotient is rounded `guard` times finer."""
        if self.guard == 1 or not (quotient := self.quotient(x)):
            return x, 1
        numerator, factor = quotient
        return self.scaled(numerator, factor * self.guard), self.guard

    def summed(self, x, axes, keepdim):
        """The sum over some axes."""
        shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keepdim or i not in axes]
        if x.op == "constant":
            count = math.prod(x.shape[axis] for axis in axes)
            return self.constant(x.params[0] * count, shape)
        x, guard = self.guarded(x)
        return self.scaled(self.node("sum", (x,), (axes, keepdim), shape), Fraction(1, guard))

    def times(self, op, x, y):
        """x times y, op being "mul" or "matmul"."""
        shape = np.broadcast_shapes(x.shape, y.shape) if op == "mul" else _matmul_shape(x, y)
        if op == "mul":
            for one, other in ((x, y), (y, x)):
                if one.op == "constant":
                    return self.scaled(self.moved("expand", other, shape), one.params[0])
        if x.op in ("constant", "public") or y.op in ("constant", "public"):
            return self.node(f"{op}_public", (x, y), (), shape)
        for one, other in ((x, y), (y, x)):
            if one.op == "scaled" and one.inputs and one.params[0].denominator == 1:
                pair = (one.inputs[0], other) if one is x else (other, one.inputs[0])
                return self.scaled(self.times(op, *pair), one.params[0])
        x, guard = self.guarded(x)
        if guard == 1:
            y, guard = self.guarded(y)
        return self.scaled(self.node(op, (x, y), (), shape), Fraction(1, guard))

    def refreshed(self, x):
        """x in fresh shares: a new node at each call."""
        node = Node("refresh", (x,), (), x.shape)
        self.pending[node.number] = node
        return node

    def moved(self, op, x, *params):
        """x with its elements moved about: an operation of `MOVES`."""
        shape = MOVES[op](np.broadcast_to(np.uint8(0), x.shape), *params).shape
        if shape == x.shape and op in ("reshape", "expand"):
            return x
        if x.op == "constant":
            return self.constant(x.params[0], shape)
        if x.op == "public":
            return self.array(MOVES[op](x.params[0], *params))
        if op == "permute" and x.op == "permute" and x.inputs:
            (base,), (inner,), (outer,) = x.inputs, x.params, params
            axes = tuple(inner[axis] for axis in outer)
            return base if axes == tuple(range(len(axes))) else self.moved("permute", base, axes)
        return self.node(op, (x,), params, shape)

    def added(self, op, x, y):
        """x + y or x - y, op being "add" or "sub", broadcast."""
        shape = np.broadcast_shapes(x.shape, y.shape)
        if x.op == y.op == "constant":
            sign = 1 if op == "add" else -1
            return self.constant(x.params[0] + sign * y.params[0], shape)
        for one, other in ((x, y), (y, x)):
            if one.op == "constant" and one.params[0] == 0:
                other = other if op == "add" or one is y else self.scaled(other, -1)
                return self.moved("expand", other, shape)
        return self.node(op, (x, y), (), shape)


def _matmul_shape(x, y):
    """The shape of x @ y, by the rules of numpy's matmul; raises ValueError if there is none."""
    rows, columns = x.shape[-2:-1], y.shape[-1:] if len(y.shape) > 1 else ()
    if not x.shape or not y.shape or x.shape[-1] != y.shape[-2:][0]:
        raise ValueError(f"shapes {x.shape} and {y.shape} do not go together in a matrix product")
    return (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), *rows, *columns)


# ---- Lowering ------------------------------------------------------------------------------------


def ancestors(roots):
    """The pending nodes that `roots` need, themselves included, each after its inputs."""
    order, seen, stack = [], set(), [(root, False) for root in reversed(roots)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif node not in seen and node.pending:
            seen.add(node)
            stack.append((node, True))
            stack.extend((input_, False) for input_ in node.inputs)
    return order


class Lowering:
    """Turns the nodes in `order` into a program that stores `keep` and reveals `reveal`, if any.

    Attributes:
        key: what `Program` is made from; equal for equal computations.
        inputs: the stored nodes that it reads; `constants`: the public arrays.
        newly_masked: the inputs whose masks are kept from this run on.
    """

    def __init__(self, order, reveal, keep):
        self.instructions, self.count = [], 0
        self.registers, self.masks = {}, {}
        self.inputs, self.constants, self.constant_registers = [], [], []
        self.input_registers, self.masked_inputs, self.masked_outputs = [], [], []
        self.newly_masked = []
        order = self.by_depth(order)
        for node in order:
            self.registers[node] = self.lower(node)
        if reveal is not None:
            self.emit("reveal", (self.share(reveal),), (reveal.shape,), outs=0)
        outputs = tuple(self.share(node) for node in keep)
        self.drop_unused({*outputs, *(register for register, _ in self.masked_outputs)})
        self.key = (
            tuple(self.instructions),
            tuple(self.input_registers),
            tuple(self.masked_inputs),
            tuple(self.constant_registers),
            outputs,
            tuple(self.masked_outputs),
        )

    def by_depth(self, order):
        """`order`, still each node after its inputs, with what can be computed at once together;
        notes which values are compared, and which comparisons can be made as one."""
        depths, self.compared = {}, {}
        for node in order:
            depths[node] = 1 + max((depths.get(x, 0) for x in node.inputs), default=0)
        for node in order:
            if node.op == "above_zero":
                at_once = self.compared.setdefault(depths[node], {})
                at_once[node.inputs[0]] = None  # a set that keeps its order
        self.compared = {x: list(group) for group in self.compared.values() for x in group}
        return sorted(order, key=depths.get)

    def emit(self, op, ins, params=(), outs=1):
        registers = tuple(range(self.count, self.count + outs))
        self.count += outs
        self.instructions.append((op, registers, ins, params))
        return registers[0] if outs == 1 else registers

    def drop_unused(self, wanted):
        """Take out the instructions whose results nothing reads: views of what is only used masked,
        a bit's share where its masked form is enough."""
        kept = []
        for instruction in reversed(self.instructions):
            op, outs, ins, _ = instruction
            if op == "reveal" or not wanted.isdisjoint(outs):
                wanted |= set(ins)
                kept.append(instruction)
        self.instructions = kept[::-1]

    def register(self):
        self.count += 1
        return self.count - 1

    def share(self, node):
        """The register with a worker's share of `node`."""
        if node not in self.registers:
            if node.op in ("constant", "public"):
                return self.emit("shared", (self.public(node),))
            if node.id is None:
                raise RuntimeError(f"a {node.op} has no share: it was not lowered")
            register = self.registers[node] = self.register()
            self.inputs.append(node)
            self.input_registers.append(register)
        return self.registers[node]

    def public(self, node):
        """The register with the public array of `node`."""
        if ("public", node) not in self.registers:
            if node.op == "constant":
                values = np.full(node.shape, round(node.params[0]) % 2**64, dtype=np.uint64)
            else:
                (values,) = node.params
            self.constants.append(values)
            self.registers["public", node] = self.register()
            self.constant_registers.append(self.registers["public", node])
        return self.registers["public", node]

    def masked(self, node, times):
        """The register with `node` opened under a mask, of which views share one opening."""
        if node.op in MOVES and node.inputs:
            inner = self.masked(node.inputs[0], times)
            if (node, inner) not in self.masks:
                view = self.emit("move", (inner,), (node.op, *node.params))
                self.masks[node, inner] = view
            return self.masks[node, inner]
        if node.op == "above_zero" and node.pending and times == "mul":
            return self.above_zero(node.inputs[0])[0]
        if node in self.compared:
            return self.above_zero(node)[1]
        if node in self.masks:
            return self.masks[node]
        share = self.share(node)
        if node.masked:
            register = self.register()
            self.masked_inputs.append((register, self.inputs.index(node)))
        else:
            register = self.emit("mask", (share,), (node.shape,))
            if node.id is not None:
                self.masked_outputs.append((register, self.inputs.index(node)))
                self.newly_masked.append(node)
        self.masks[node] = register
        return register

    def above_zero(self, x):
        """The registers with the bit x > 0 and with x, both masked: one comparison for each x."""
        if ("above_zero", x) not in self.masks:
            self.compare(self.compared[x])
        return self.masks["above_zero", x]

    def compare(self, nodes):
        """Compare several values with zero in one instruction."""
        if len(nodes) == 1:
            (x,) = nodes
            registers = self.emit("above_zero", (self.share(x),), (x.shape,), outs=2)
            self.masks["above_zero", x] = registers
            return
        flat = [self.emit("reshape", (self.share(x),), ((x.size,),)) for x in nodes]
        total = sum(x.size for x in nodes)
        results = self.emit("above_zero", (self.emit("cat", tuple(flat), (0,)),), ((total,),), 2)
        start = 0
        for x in nodes:
            part = ("index", (("slice", start, start + x.size, None),))
            parts = [self.emit("move", (register,), part) for register in results]
            self.masks["above_zero", x] = tuple(
                self.emit("move", (register,), ("reshape", x.shape)) for register in parts
            )
            start += x.size

    def lower(self, node):
        """Emit the instructions of `node`; its inputs have been lowered."""
        op, inputs, params = node.op, node.inputs, node.params
        if op == "scaled":
            (factor,) = params
            share = self.share(inputs[0])
            if factor.numerator != 1:
                share = self.emit("scale", (share,), (factor.numerator % 2**64,))
            if factor.denominator != 1:
                share = self.emit("truncate", (share,), (node.shape, factor.denominator))
            return share
        if op in ("mul", "matmul"):
            pair = tuple(self.masked(x, op) for x in inputs)
            return self.emit("product", pair, (op, node.shape))
        if op in ("mul_public", "matmul_public"):
            x, y = inputs
            left = x.op in ("constant", "public")
            secret, public = (y, x) if left else (x, y)
            registers = (self.share(secret), self.public(public))
            return self.emit(op, registers, (left,) if op == "matmul_public" else ())
        if op in ("add", "sub"):
            return self.lower_sum(op, *inputs)
        if op == "above_zero":
            return self.emit("unmask", (self.above_zero(inputs[0])[0],))
        if op == "refresh":
            return self.emit("refresh", (self.share(inputs[0]),), (node.shape,))
        return self.emit(op, tuple(self.share(x) for x in inputs), params)

    def lower_sum(self, op, x, y):
        """x + y or x - y, where one of them may be public."""
        if x.op in ("constant", "public"):
            share = self.share(y)
            if op == "sub":
                share, op = self.emit("scale", (share,), (2**64 - 1,)), "add"
            public = x
        elif y.op in ("constant", "public"):
            share, public = self.share(x), y
        else:
            return self.emit(op, (self.share(x), self.share(y)))
        if public.op == "constant":
            value = round(public.params[0]) * (1 if op == "add" else -1)
            return self.emit("add_constant", (share,), (value % 2**64, public.shape))
        register = self.public(public)
        if op == "sub":
            register = self.emit("scale", (register,), (2**64 - 1,))
        return self.emit("add_public", (share, register))
