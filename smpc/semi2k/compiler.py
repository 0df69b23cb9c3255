"""From a graph of values to a program: where truncations, masks, and so rounds, go.

The compiler gives each node a form (see `arithmetic`) and a scale: the integers that a register
holds are the value times this. A public factor changes the scale and costs nothing; a sum is made
at a scale that both its parts have; a product has the product of the scales. An integer is
truncated only where it must be: as a factor, or where it is revealed or compared, if its scale is
finer than the node's resolution. So a bias, the terms of a loss, or gradients that arrive by
several paths are added before anything is rounded.
"""

import math
from fractions import Fraction
from typing import NamedTuple

from smpc.semi2k import gaussian, noise
from smpc.semi2k.program import LINEAR, MOVES, name_of, pack_program
from smpc.semi2k.values import Value, common_scale, raw_array

# A truncation's zone (see `arithmetic.truncate`) is as wide as its promise needs, which is a
# MAGNITUDE in numbers, and no wider than makes one run in 2^ANEW be made anew: so it promises what
# is left. Where that is less than LEAST, in numbers, or LEAST_GRADIENT for what is only rounded, as
# an update is, the truncation is exact instead; and where nothing is known of what a number is, as
# of integers that are in no fixed precision. (What a rounded value exceeds its promise by is
# paid with a chance of |x| / 2^64 that it is wrong, but a comparison is wrong for certain.)
MAGNITUDE, LEAST, LEAST_GRADIENT = 10**6, 100, 1
ZONE, ANEW = 41, 5
LARGEST_DIVISOR = 2**62  # of `arithmetic.truncate_exactly`
LEAST_SIGMA = 2**30  # integers in the standard deviation of a worker's noise
WHOLE = 60 * noise.UNIT  # so that an item's part, in units of c_k, is shared out among 2 to 5
MASKED_SLACK = 64  # how much finer than its resolution what is masked already may stay as a factor
ROOM = 2**61  # for LEAST in integers, or for what is promised, where parts of a sum are aligned
MOST_ALIGNED = 2**32  # what one part of a sum may be multiplied by, to have the other's scale


class Stored(NamedTuple):
    """A value that a run leaves with the workers; `form` as in `graph.Node`."""

    node: object
    form: str
    scale: Fraction


class Plan(NamedTuple):
    """What a computation was compiled to, for any nodes of the same looks: see `graph.described`.

    Attributes:
        key: what `program.Program` reads; `name`: what it is called.
        inputs: which of the nodes it reads; `stored`: which it leaves stored, as `Stored`s of
            their numbers, in the order of the program's outputs.
        zones: (elements, zone) of each truncation that may have its run made anew.
    """

    key: bytes
    name: bytes
    inputs: tuple
    stored: tuple
    zones: tuple


def compiled(nodes, *computation):
    """The `Plan` of a computation, the arguments of a `Compiler`, on `nodes`."""
    numbers = {node: number for number, node in enumerate(nodes)}
    compiler = Compiler(*computation)
    return Plan(
        compiler.key,
        name_of(compiler.key),
        tuple(numbers[node] for node in compiler.inputs),
        tuple(stored._replace(node=numbers[stored.node]) for stored in compiler.stored),
        tuple(compiler.zones),
    )


class Compiler:
    """Turns nodes into a program.

    Args:
        order: the nodes to compute, each after its inputs.
        reveal: of these the one to reveal, or None.
        wanted: those that must be stored, and whether to be factors, as pairs; one that is stored
            already is to be stored masked.
        kept: those that something still refers to: stored if that sends nothing, else what they are
            made from is.
        exact: whether every truncation is to be exact.
    Attributes:
        key: what `program.Program` reads; equal for equal computations.
        inputs: the stored nodes that it reads.
        stored: a list of `Stored`, in the order of the program's outputs.
        zones: (elements, zone) of each truncation that may have its run made anew.
    """

    def __init__(self, order, reveal, wanted, kept, exact):
        self.exact = exact
        self.most_zone = ZONE
        self._compile(order, reveal, wanted, kept)
        n_elements = sum(n for n, _ in self.zones)
        if (most := 64 - ANEW - math.ceil(math.log2(max(n_elements, 1)))) < ZONE:
            self.most_zone = most
            self._compile(order, reveal, wanted, kept)

    def _compile(self, order, reveal, wanted, kept):
        self.instructions, self._count = [], 0
        self.inputs, self._input_registers = [], []
        self._values, self._factors, self._rounded, self._opened = {}, {}, {}, {}
        self._constants = {}
        order = self._by_depth(order)
        for node in order:
            self._value(node)
        if reveal is not None:
            self._reveal(reveal)
        self.stored, registers, ready = [], [], []
        for node, be_factor in wanted:
            registers.append(self._store(node, self._stored_anyway(node, be_factor)))
            ready += registers[-1:] if be_factor else []
        registers += self._keep(kept)
        live = set(registers)
        shares = self._finish(live, set(ready))
        read = [(node, r) for node, r in zip(self.inputs, self._input_registers, strict=True)
                if r[0] in live]  # fmt: skip
        self.inputs, self._input_registers = [node for node, _ in read], [r for _, r in read]
        self.stored = [
            stored._replace(form="hidden")
            if stored.form == "masked" and register not in shares
            else stored
            for stored, register in zip(self.stored, registers, strict=True)
        ]
        self.key = pack_program(
            tuple(self.instructions), tuple(self._input_registers), tuple(registers)
        )

    def _by_depth(self, order):
        """`order`, with what can be computed at once together; notes which comparisons can be
        made as one."""
        depths, groups = {}, {}
        for node in order:
            depths[node] = 1 + max((depths.get(x, 0) for x in node.inputs), default=0)
        for node in order:
            if node.op == "above_zero":
                groups.setdefault(depths[node], []).append(node)
        self._compared = {node: group for group in groups.values() for node in group}
        return sorted(order, key=depths.get)

    # ---- instructions

    def _emit(self, op, ins, *params, outs=1):
        registers = tuple(range(self._count, self._count + outs))
        self._count += outs
        self.instructions.append((op, registers, tuple(ins), params))
        return registers[0] if outs == 1 else registers

    def _finish(self, live, shares):
        """Drop the instructions whose results nothing reads, and quotients that nobody needs.

        Args:
            live: the registers to store, to which those are added that must be made for them;
                `shares`: those of whose masks shares must be.
        Returns:
            the registers of masked values of whose masks the workers have shares.
        """
        kept, self.zones = [], []
        for op, outs, ins, params in reversed(self.instructions):
            if op != "reveal" and live.isdisjoint(outs):
                continue
            live |= set(ins)
            passes_on = (op in LINEAR or op == "add_public") and not shares.isdisjoint(outs)
            if passes_on or op in ("product", "select", "unmask"):
                shares |= set(ins)
            if op == "truncate":
                shape, d, zone = params
                params = (shape, d, zone, outs[0] in shares)
                self.zones.append((math.prod(shape), zone))
            kept.append((op, outs, ins, params))
        self.instructions = kept[::-1]
        return shares

    # ---- values

    def _value(self, node):
        """The `Value` of a node, at whatever scale it has."""
        if node not in self._values:
            self._values[node] = self._make(node) if node.pending else self._input(node)
        return self._values[node]

    def _input(self, node):
        if node.id is None:
            raise RuntimeError(f"a {node.op} was not compiled")
        register, self._count = self._count, self._count + 1
        self.inputs.append(node)
        form = "share" if node.form == "share" else "masked"
        self._input_registers.append((register, form, node.shape))
        return Value(form, register, node.scale, hidden=node.form == "hidden")

    def _make(self, node):
        op, inputs, params = node.op, node.inputs, node.params
        if op == "scaled":
            return self._scaled(inputs[0], params[0])
        if op == "rounded":
            return self._round(inputs[0], params[0], LEAST_GRADIENT)
        if op == "kept":
            return self._value(inputs[0])
        if op == "opened":
            return self._factor(inputs[0])
        if op == "refresh":
            return self._share(self._value(inputs[0]), node.shape)
        if op == "noise":
            return self._noised(self._value(inputs[0]), node.shape, *params)
        if op in ("add", "sub"):
            return self._sum(op, node, *inputs)
        if op == "cat":
            return self._cat(node)
        if op in ("mul", "matmul"):
            return self._product(op, node, *inputs)
        if op == "above_zero":
            self._compare(self._compared[node])
            return self._values.pop(node)
        value = self._value(inputs[0])
        if op in MOVES:
            return value._replace(register=self._emit(op, (value.register,), *params))
        value = self._numbers(value)
        if op in ("scatter", "fold"):
            return value._replace(register=self._emit(op, (value.register,), *params), bound=None)
        if op != "sum":
            raise RuntimeError(f"no such operation: {op}")
        count = math.prod(inputs[0].shape[axis] for axis in params[0])
        return value._replace(
            register=self._emit("sum", (value.register,), *params),
            bound=value.bound and value.bound * count,
        )

    def _scaled(self, node, factor):
        value, finest = self._value(node), Fraction(node.resolution)
        if abs(factor) <= 1 and (node, finest) in self._rounded:
            value = self._rounded[node, finest]  # which is a factor already, or can be
        if factor < 0:
            value = self._times(self._numbers(value), -1)
        return value._replace(scale=value.scale / abs(factor))

    def _times(self, value, k):
        """The integers themselves times a public integer k, at the same scale."""
        if k == 1:
            return value
        register = self._emit("scale", (value.register,), k % 2**64)
        return value._replace(register=register, bound=value.bound and value.bound * abs(k))

    def _numbers(self, value):
        """A bit's value in shares, which can be summed; any other as it is."""
        if value.form != "bit":
            return value
        return value._replace(form="share", register=self._emit("unmask", (value.register,)))

    def _partial(self, value, hide=True):
        """As a partial; of a masked value with shares of its mask, a share if `hide` is not set."""
        value = self._numbers(value)
        if value.form != "masked":
            return value
        hide = hide or value.hidden
        register = self._emit("partial" if hide else "unmask", (value.register,))
        return value._replace(form="partial" if hide else "share", register=register, hidden=False)

    def _share(self, value, shape):
        """In fresh shares."""
        value = self._partial(value)
        register = self._emit("complete", (value.register,), shape)
        return value._replace(form="share", register=register)

    def _noised(self, value, shape, sigma, correlation, slot):
        """With noise of a standard deviation, in units, on each worker's share; in integers so fine
        that it is `LEAST_SIGMA` of them at least, and that the value is a multiple of `WHOLE`."""
        value = self._partial(value)
        finer = WHOLE * math.ceil(LEAST_SIGMA / (sigma * value.scale * WHOLE))
        value = self._times(value, finer)._replace(scale=value.scale * finer)
        steps = math.ceil(sigma * value.scale)
        if steps > gaussian.MOST:
            raise OverflowError("noise of this size does not fit the ring, use fewer digits")
        register = self._emit("noise", (value.register,), shape, steps, correlation, slot)
        return value._replace(register=register, bound=None)

    # ---- sums

    def _sum(self, op, node, x, y):
        pair, scale = self._aligned(node)
        if x.public or y.public:
            return self._sum_with_public(op, x, y, scale)
        pair = self._alike([self._times(value, int(scale / s)) for s, value in pair])
        bounds = [value.bound for value in pair]
        return Value(
            pair[0].form,
            self._emit(op, [value.register for value in pair]),
            scale,
            None if None in bounds else sum(bounds),
            any(value.hidden for value in pair),
        )

    def _aligned(self, node):
        """(scale, value) of each part of a sum, or of what is put together; and the scale that all
        are made at: as fine as they are, or as the node is kept if the ring has no room for that.
        """
        terms = [self._term(part) for part in node.inputs]
        scale = common_scale(*(scale for scale, _ in terms))
        fits = scale <= node.resolution or scale * node.one * max(LEAST, node.magnitude) <= ROOM
        if not fits or any(value and scale / s > MOST_ALIGNED for s, value in terms):
            terms = [self._coarse_term(part) for part in node.inputs]
            scale = common_scale(*(scale for scale, _ in terms))
        return terms, scale

    def _term(self, node):
        """(scale, value) of a part; of a public one None is the value."""
        if node.public:
            return 1 / abs(node.values[1]), None
        value = self._numbers(self._value(node))
        return value.scale, value

    def _coarse_term(self, node):
        if node.public:
            return Fraction(1), None
        value = self._round(node, Fraction(node.resolution))
        return value.scale, value

    def _sum_with_public(self, op, x, y, scale):
        secret, public = (x, y) if y.public else (y, x)
        value = self._numbers(self._value(secret))
        if (scale / value.scale).denominator != 1:
            _, value = self._coarse_term(secret)
        signs = (-1 if op == "sub" and node is y else 1 for node in (secret, public))
        value = self._times(value, next(signs) * int(scale / value.scale))
        values, factor = public.values
        array = raw_array(values, next(signs) * factor * scale)
        register = self._emit("add_public", (value.register,), *array)
        most = math.ceil(float(abs(values).max(initial=0)) * abs(factor * scale)) + 1
        bound = value.bound and value.bound + most
        return value._replace(register=register, scale=scale, bound=bound)

    def _alike(self, values):
        """Values, in forms that can be added."""
        forms = {value.form for value in values}
        if forms == {"masked"}:
            return values
        values = [self._partial(value, hide="partial" in forms) for value in values]
        form = "partial" if any(value.form == "partial" for value in values) else "share"
        return [value._replace(form=form) for value in values]

    def _cat(self, node):
        terms, scale = self._aligned(node)
        values = self._alike(
            [
                self._masked_public(part, scale)
                if value is None
                else self._times(value, int(scale / s))
                for part, (s, value) in zip(node.inputs, terms, strict=True)
            ]
        )
        bounds = [value.bound for value in values]
        return Value(
            values[0].form,
            self._emit("cat", [value.register for value in values], *node.params),
            scale,
            None if None in bounds else max(bounds),
            any(value.hidden for value in values),
        )

    def _masked_public(self, node, scale):
        """A public value as a masked one, whose mask is 0."""
        values, factor = node.values
        return Value("masked", self._emit("public", (), *raw_array(values, factor * scale)), scale)

    # ---- products

    def _product(self, op, node, x, y):
        if x.public or y.public:
            secret, public = (y, x) if x.public else (x, y)
            value = self._numbers(self._value(secret))
            if value.scale > secret.resolution * secret.one:
                value = self._round(secret, Fraction(secret.resolution))
            values, factor = public.values
            sides = (secret is y,) if op == "matmul" else ()
            array = raw_array(values, -1 if factor < 0 else 1)
            register = self._emit(f"{op}_public", (value.register,), *array, *sides)
            return value._replace(register=register, scale=value.scale / abs(factor), bound=None)
        bits = [op == "mul" and self._value(factor).form == "bit" for factor in (x, y)]
        if any(bits):
            if bits[1]:
                x, y = y, x
            pair = self._value(x), self._value(y) if all(bits) else self._factor(y)
            register = self._emit("select", [value.register for value in pair], node.shape)
            return Value("share", register, pair[0].scale * pair[1].scale, pair[1].bound)
        pair = self._factor(x), self._factor(y)
        register = self._emit("product", [value.register for value in pair], op)
        return Value("partial", register, pair[0].scale * pair[1].scale)

    def _factor(self, node):
        """`node` masked, with shares of its mask; of which views share one opening."""
        if node not in self._factors:
            self._factors[node] = self._make_factor(node)
        return self._factors[node]

    def _make_factor(self, node):
        if node.op in MOVES and node.pending:
            value = self._factor(node.inputs[0])
            return value._replace(register=self._emit(node.op, (value.register,), *node.params))
        value, finest = self._value(node), Fraction(node.resolution)
        if value.scale > finest * (MASKED_SLACK if value.form == "masked" else 1):
            value = self._round(node, finest)
        masked = self._masked(value, node.shape)
        if masked.scale == self._value(node).scale:
            self._values[node] = masked
        return masked

    def _masked(self, value, shape):
        value = self._numbers(value)
        if value.form == "partial":
            value = self._share(value, shape)
        if value.form == "share":
            register = self._emit("mask", (value.register,), shape, False)
            return value._replace(form="masked", register=register)
        if value.hidden:
            register = self._emit("unhide", (value.register,), shape)
            return value._replace(register=register, hidden=False)
        return value

    # ---- truncations

    def _round(self, node, to, least=None):
        """`node` at the scale `to`, rounded if its own is finer; of which views share one.

        Args:
            least: the magnitude to be promised; by default what the scale says, or the node.
        """
        if (node, to) not in self._rounded:
            self._rounded[node, to] = self._truncate(node, to, least)
        return self._rounded[node, to]

    def _truncate(self, node, to, least):
        if node.op in MOVES and node.pending:
            value = self._round(node.inputs[0], to, least)
            return value._replace(register=self._emit(node.op, (value.register,), *node.params))
        value = self._numbers(self._value(node))
        ratio = value.scale / to
        value = self._times(value, ratio.denominator)._replace(scale=to * ratio.numerator)
        if (d := ratio.numerator) == 1:
            return value
        partial = self._partial(value)
        least = node.magnitude or least or (LEAST if to == 1 else LEAST_GRADIENT)
        if node.magnitude * value.scale * node.one > 2**62:
            raise OverflowError("what is computed here does not fit the ring, use fewer digits")
        zone = self._zone(int(value.scale * node.one), d, least) if node.one > 1 else None
        if zone is None:
            if d > LARGEST_DIVISOR:
                raise OverflowError("semi2k divides by numbers within ±2^62")
            outs = self._emit("truncate_exactly", (partial.register,), node.shape, d, outs=2)
            y = Value("share", outs[0], to, 2**62 // d + 1)
        else:
            outs = self._emit("truncate", (partial.register,), node.shape, d, zone, outs=2)
            y = Value("masked", outs[0], to, 2 ** (zone - 1) // d + 1)
        bound = None if zone is None else 2 ** (zone - 1) - 1
        opened = Value("masked", outs[1], value.scale, bound, hidden=True)
        self._opened[node] = opened
        if self._values[node].form == "partial":
            self._values[node] = opened  # the same, and masked, for nothing
        return y

    def _zone(self, steps, d, least):
        """How wide the zone of a truncation by d is, for integers of so many steps in the number 1;
        None if it must be exact, so as to promise the magnitude `least`."""
        zone = min((MAGNITUDE * steps).bit_length() + 1, self.most_zone)
        fits = 2 ** (zone - 1) >= least * steps and d < 2 ** (zone - 2)
        return zone if fits and not self.exact else None

    # ---- comparisons

    def _compare(self, nodes):
        """Make all these comparisons with zero, as one for each number of bits."""
        groups = {}
        for node in nodes:
            value = self._comparable(node.inputs[0])
            groups.setdefault(value.bits, []).append((node, value))
        for bits, group in groups.items():
            registers = [value.register for _, value in group]
            if len(group) > 1:
                flat = [
                    self._emit("reshape", (register,), (node.size,))
                    for register, (node, _) in zip(registers, group, strict=True)
                ]
                registers = [self._emit("cat", flat, 0)]
            size = sum(node.size for node, _ in group)
            shape = (size,) if len(group) > 1 else group[0][0].shape
            all_bits, start = self._emit("above_zero", registers, shape, bits), 0
            for node, _ in group:
                register = all_bits
                if len(group) > 1:
                    part = (("slice", start, start + node.size, None),)
                    register = self._emit("index", (all_bits,), part)
                    register = self._emit("reshape", (register,), node.shape)
                    start += node.size
                self._values[node] = Value("bit", register, Fraction(1), 1)

    def _comparable(self, node):
        """`node` masked, in integers of any scale, with or without shares of its mask."""
        if node.op in MOVES and node.pending:
            value = self._comparable(node.inputs[0])
            return value._replace(register=self._emit(node.op, (value.register,), *node.params))
        value = self._value(node)
        if value.form not in ("masked", "bit") and value.scale > node.resolution:
            self._round(node, Fraction(node.resolution))
            return self._opened[node]
        if value.form == "masked":
            return value
        value = self._numbers(value)
        hidden = value.form == "partial"
        register = self._emit("mask", (value.register,), node.shape, hidden)
        masked = value._replace(form="masked", register=register, hidden=hidden)
        if not hidden:
            self._factors[node] = masked
        return masked

    # ---- what comes out of it

    def _reveal(self, node):
        value = self._partial(self._round(node, Fraction(1)))
        self._emit("reveal", (value.register,), node.shape, outs=0)

    def _storable(self, node):
        """`node` in the best form that there is to store; None if none is to be had for nothing."""
        finest = Fraction(node.resolution)
        value = self._factors.get(node) or self._rounded.get((node, finest)) or self._value(node)
        value = self._numbers(value)
        return None if value.form == "partial" else value

    def _stored_anyway(self, node, be_factor):
        """`node` in a form to store, `be_factor`: with shares of its mask."""
        value = self._storable(node)
        if value is None and not be_factor:  # such as the remainder of an update: at its own scale
            return self._share(self._value(node), node.shape)
        if value is None or (be_factor and value.hidden):
            value = self._round(node, Fraction(node.resolution))
        if value.form == "partial":
            return self._share(value, node.shape)
        wanting = value.hidden or not node.pending  # a share that is stored already: see `load`
        return self._masked(value, node.shape) if be_factor and wanting else value

    def _store(self, node, value):
        self.stored.append(Stored(node, value.form, value.scale))
        return value.register

    def _keep(self, nodes):
        """Store what costs nothing; of the rest, what it is made from. What only moves elements
        about stays pending, and needs what it moves."""
        registers, done, todo = [], {stored.node for stored in self.stored}, list(nodes)
        while todo:
            node = todo.pop()
            if node in done:
                continue
            done.add(node)
            if not node.pending:
                continue
            value = None if node.op in MOVES else self._storable(node)
            if value is None:
                todo += reversed(node.inputs)
            else:
                registers.append(self._store(node, value))
        for node in self.inputs:  # a share that was masked on the way stays masked
            if node.form == "share" and node not in done and node in self._factors:
                registers.append(self._store(node, self._factors[node]))
        return registers
