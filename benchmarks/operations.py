"""Every operation that `semi2k` has, run: how far it is off, and what it costs.

    make operations                     # a minute; prints the tables of docs/operations.md
    make operations ARGS=--write        # and puts them there
    make operations ARGS=--peers        # the precision of published systems, beside ours

Each operation is run on what its `Example` says, the same in
every run, and compared with torch on float64. What its range is, and where it comes from, is read
from docstrings: the last paragraph, "Range: ...", of its own and of its module's, which goes for
all.
"""

import argparse
import contextlib
import inspect
import json
import math
import pathlib
import re
import sys
import tempfile
from itertools import groupby
from typing import NamedTuple

import numpy
import torch
import torch.nn.functional as F

from benchmarks import peers
from smpc import compat, operations
from smpc.operations import functions, layers, losses, pointwise, reductions, shapes
from smpc.semi2k import wire
from smpc.semi2k.network import Network

compat.prepare()

import syft  # noqa: E402

from smpc import syft_binding  # noqa: E402

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "operations.md"
DIGITS, FINER = 3, 5
N = 1024  # elements of an example: comparisons of 64 at a time have none left over
SEED = 13
PARTIES = "operations-worker1", "operations-worker2", "operations-provider"

# ---- What is run ---------------------------------------------------------------------------------


def within(low, high, *shape):
    """Numbers between bounds, N of them or a shape, as a function of a generator."""
    shape = shape or (N,)
    return lambda generator: (
        low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)
    )


def across(low, high, *shape):
    """Likewise, each magnitude as likely."""
    exponents = within(math.log(low), math.log(high), *shape)
    return lambda generator: exponents(generator).exp()


def of_both_signs(make):
    """Likewise, every other one below zero."""

    def alternating(generator):
        values = make(generator)
        values[::2] *= -1
        return values

    return alternating


def classes(count, n):
    """n of so many classes, as numbers."""
    return lambda generator: torch.randint(count, (n,), generator=generator).double()


class Example(NamedTuple):
    """How an operation is called.

    Attributes:
        call: from tensors, shared ones or torch's own, to the result, a tensor or a tuple of them.
        inputs: of each tensor a function from a generator to its values.
        plain: what is called on torch's own, where `call` cannot be.
    """

    call: object
    inputs: tuple
    plain: object = None


def example(call, *inputs, plain=None):
    """An `Example`."""
    return Example(call, inputs, plain)


def _assigned(x, value):
    y = x.clone()
    y[10:20] = value
    return y


def _dropped(x):
    torch.manual_seed(SEED)
    return F.dropout(x, 0.25)


def _dropped_plainly(x):
    torch.manual_seed(SEED)
    return x * (torch.rand(x.shape) >= 0.25) / 0.75


SMALL, MEDIUM, BIG = within(-8, 8), within(-20, 20), within(-1000, 1000)
BESIDE_ZERO = of_both_signs(across(0.01, 1000))
LINES, IMAGES, ROWS = within(-8, 8, 8, 128), within(-2, 2, 4, 2, 12, 12), within(-8, 8, 128, 10)
MATRIX, KERNELS = within(-1, 1, 100, 10), within(-1, 1, 5, 2, 3, 3)
APART = within(-1000, 1000, 128, 10)  # (of equal elements torch does not say which is first)
LABELS, LIKELY = classes(10, 128), within(0.01, 0.99)
EVERY_OTHER = torch.arange(N) % 2 == 0

EXAMPLES = {
    # pointwise
    "add": example(lambda x, y: x + y, BIG, BIG),
    "sub": example(lambda x, y: x - y, BIG, BIG),
    "rsub": example(lambda x: 1 - x, BIG),
    "mul": example(lambda x, y: x * y, SMALL, SMALL),
    "neg": example(lambda x: -x, BIG),
    "positive": example(lambda x: +x, BIG),
    "square": example(lambda x: x.square(), SMALL),
    "gt": example(lambda x, y: x > y, BIG, BIG),
    "lt": example(lambda x, y: x < y, BIG, BIG),
    "ge": example(lambda x, y: x >= y, BIG, BIG),
    "le": example(lambda x, y: x <= y, BIG, BIG),
    "ne": example(lambda x, y: x != y, BIG, BIG),
    "eq": example(lambda x, y: x == y, BIG, BIG),
    "sign": example(lambda x: x.sign(), BIG),
    "relu": example(lambda x: x.relu(), BIG),
    "leaky_relu": example(lambda x: F.leaky_relu(x, 0.1), BIG),
    "abs": example(lambda x: x.abs(), BIG),
    "where": example(lambda x, y: torch.where(x > y, x, y), BIG, BIG),
    "masked_fill": example(lambda x: x.masked_fill(EVERY_OTHER, -1.5), BIG),
    "maximum": example(lambda x, y: torch.maximum(x, y), BIG, BIG),
    "minimum": example(lambda x, y: torch.minimum(x, y), BIG, BIG),
    "clamp": example(lambda x: x.clamp(-500, 250), BIG),
    "clamp_min": example(lambda x: x.clamp_min(-500), BIG),
    "clamp_max": example(lambda x: x.clamp_max(250), BIG),
    "hardtanh": example(lambda x: F.hardtanh(x), SMALL),
    "relu6": example(lambda x: F.relu6(x), SMALL),
    "pow": example(lambda x: x**3, within(-4, 4)),
    "div": example(lambda x, y: x / y, SMALL, BESIDE_ZERO),
    "rdiv": example(lambda x: 2 / x, BESIDE_ZERO),
    # functions
    "reciprocal": example(lambda x: x.reciprocal(), BESIDE_ZERO),
    "sqrt": example(lambda x: x.sqrt(), across(0.01, 1000)),
    "rsqrt": example(lambda x: x.rsqrt(), across(0.01, 1000)),
    "exp": example(lambda x: x.exp(), within(-10, 5)),
    "log": example(lambda x: x.log(), across(0.01, 1000)),
    "expm1": example(lambda x: x.expm1(), within(-10, 5)),
    "log2": example(lambda x: x.log2(), across(0.01, 1000)),
    "log10": example(lambda x: x.log10(), across(0.01, 1000)),
    "log1p": example(lambda x: x.log1p(), across(0.01, 1000)),
    "sin": example(lambda x: x.sin(), MEDIUM),
    "cos": example(lambda x: x.cos(), MEDIUM),
    "sigmoid": example(lambda x: x.sigmoid(), MEDIUM),
    "tanh": example(lambda x: x.tanh(), MEDIUM),
    "erf": example(lambda x: x.erf(), MEDIUM),
    "softplus": example(lambda x: F.softplus(x), MEDIUM),
    "silu": example(lambda x: F.silu(x), MEDIUM),
    "gelu": example(lambda x: F.gelu(x), MEDIUM),
    # shapes
    "view": example(lambda x: x.view(8, 128), BIG),
    "view_as": example(lambda x: x.view_as(torch.empty(8, 128)), BIG),
    "flatten": example(lambda x: x.flatten(), LINES),
    "unflatten": example(lambda x: x.unflatten(1, (4, 32)), LINES),
    "squeeze": example(lambda x: x.squeeze(1), within(-8, 8, N, 1)),
    "unsqueeze": example(lambda x: x.unsqueeze(0), BIG),
    "permute": example(lambda x: x.permute(1, 0), LINES),
    "transpose": example(lambda x: x.transpose(0, 1), LINES),
    "t": example(lambda x: x.t(), LINES),
    "transposed": example(lambda x: x.mT, LINES),
    "movedim": example(lambda x: x.movedim(0, 1), LINES),
    "expand": example(lambda x: x.expand(10, N), BIG),
    "expand_as": example(lambda x: x.expand_as(torch.empty(10, N)), BIG),
    "repeat": example(lambda x: x.repeat(2), BIG),
    "getitem": example(lambda x: x[2:, ::3], LINES),
    "setitem": example(_assigned, BIG, within(-1, 1, 10)),
    "select": example(lambda x: x.select(1, 3), LINES),
    "narrow": example(lambda x: x.narrow(1, 20, 50), LINES),
    "index_select": example(lambda x: x.index_select(1, torch.tensor([5, 5, 2])), LINES),
    "gather": example(lambda x: x.gather(1, torch.arange(24).view(8, 3)), LINES),
    "flip": example(lambda x: x.flip(1), LINES),
    "split": example(lambda x: x.split(30, 1), LINES),
    "chunk": example(lambda x: x.chunk(4, 1), LINES),
    "unbind": example(lambda x: x.unbind(0), LINES),
    "diag": example(lambda x: x.diag(), LINES),
    "tril": example(lambda x: x.tril(), LINES),
    "triu": example(lambda x: x.triu(1), LINES),
    "cat": example(lambda x, y: torch.cat([x, y], 1), LINES, LINES),
    "stack": example(lambda x, y: torch.stack([x, y]), LINES, LINES),
    "pad": example(lambda x: F.pad(x, (1, 2)), LINES),
    "clone": example(lambda x: x.clone(), BIG),
    "contiguous": example(lambda x: x.contiguous(), BIG),
    "refresh": example(lambda x: x.refresh(), BIG, plain=lambda x: +x),
    # reductions
    "sum": example(lambda x: x.sum(1), LINES),
    "mean": example(lambda x: x.mean(1), LINES),
    "var": example(lambda x: x.var(1), LINES),
    "std": example(lambda x: x.std(1), LINES),
    "norm": example(lambda x: x.norm(dim=1), LINES),
    "cumsum": example(lambda x: x.cumsum(1), LINES),
    "prod": example(lambda x: x.prod(1), within(-2, 2, 128, 8)),
    "max": example(lambda x: x.max(1), LINES),
    "min": example(lambda x: x.min(1), LINES),
    "argmax": example(lambda x: x.argmax(1), LINES),
    "argmin": example(lambda x: x.argmin(1), LINES),
    "amax": example(lambda x: x.amax(1), LINES),
    "amin": example(lambda x: x.amin(1), LINES),
    "topk": example(lambda x: x.topk(3), APART),
    "sort": example(lambda x: x.sort(), APART),
    "argsort": example(lambda x: x.argsort(), APART),
    "dot": example(lambda x, y: x.dot(y), within(-1, 1), within(-1, 1)),
    "matmul": example(lambda x, y: x @ y, within(-1, 1, 10, 100), MATRIX),
    "rmatmul": example(lambda x: torch.eye(8).double() / 2 @ x, LINES),
    # layers
    "linear": example(
        lambda x, w, b: F.linear(x, w, b),
        *(within(-1, 1, 64, 100), within(-1, 1, 10, 100), within(-1, 1, 10)),
    ),
    "addmm": example(
        lambda b, x, w: torch.addmm(b, x, w),
        *(within(-1, 1, 10), within(-1, 1, 64, 100), MATRIX),
    ),
    "conv2d": example(lambda x, w: F.conv2d(x, w, stride=2, padding=1), IMAGES, KERNELS),
    "avg_pool2d": example(lambda x: F.avg_pool2d(x, 2), IMAGES),
    "adaptive_avg_pool2d": example(lambda x: F.adaptive_avg_pool2d(x, 3), IMAGES),
    "max_pool2d": example(lambda x: F.max_pool2d(x, 2), IMAGES),
    "batch_norm": example(
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        *(IMAGES, within(0.5, 2, 2), within(-1, 1, 2)),
    ),
    "dropout": example(_dropped, BIG, plain=_dropped_plainly),
    # losses
    "softmax": example(lambda x: x.softmax(1), ROWS),
    "log_softmax": example(lambda x: x.log_softmax(1), ROWS),
    "nll_loss": example(
        lambda x, c: F.nll_loss(x, c),
        *(within(-8, 0, 128, 10), LABELS),
        plain=lambda x, c: F.nll_loss(x, c.long()),
    ),
    "cross_entropy": example(
        lambda x, c: F.cross_entropy(x, c),
        ROWS,
        LABELS,
        plain=lambda x, c: F.cross_entropy(x, c.long()),
    ),
    "mse_loss": example(lambda x, y: F.mse_loss(x, y), SMALL, SMALL),
    "l1_loss": example(lambda x, y: F.l1_loss(x, y), SMALL, SMALL),
    "binary_cross_entropy": example(
        lambda x, y: F.binary_cross_entropy(x, y.detach()), LIKELY, within(0, 1)
    ),
    "binary_cross_entropy_with_logits": example(
        lambda x, y: F.binary_cross_entropy_with_logits(x, y.detach()), SMALL, within(0, 1)
    ),
}


# ---- Running it ----------------------------------------------------------------------------------


class Cost(NamedTuple):
    """What computing a value took.

    Attributes:
        rounds: in which each worker sends each other what it opens, `opened` bytes of it in all.
        dealt: bytes that the provider sent the last worker, but for what hides what is revealed.
    """

    rounds: int
    opened: int
    dealt: int


class Run(NamedTuple):
    """An operation on its example.

    Attributes:
        name: of the operation; `digits`: that it was run at; `shapes`: of its inputs.
        error: the largest from torch's result on float64, in units of the last digit; `cost`: a
            `Cost`.
        gradient_error, gradient_cost: of the inputs' gradients, for a gradient of the result within
            1; the cost has in it whatever of the result is needed. None where there is none.
    """

    name: str
    digits: int
    shapes: tuple
    error: float
    cost: Cost
    gradient_error: float = None
    gradient_cost: Cost = None


def parties():
    """Two workers and a crypto provider, in this process."""
    return [syft.VirtualWorker(syft.hook, id=party) for party in PARTIES]


def run(name, digits, parties, of_gradients=True):
    """The `Run` of an operation."""
    call, inputs, plain = EXAMPLES[name]
    generator = torch.Generator().manual_seed(SEED)
    values = [make(generator) for make in inputs]
    secret = [share(v, digits, parties) for v in values]
    known = [revealed(x).requires_grad_() for x in secret]
    wanted = in_one_row((plain or call)(*known))
    with counted() as cost:
        error = error_of(in_one_row(call(*secret)), wanted, digits)
    result = Run(name, digits, tuple(tuple(v.shape) for v in values), error, cost())
    if not (of_gradients and wanted.requires_grad):
        return result
    upstream = share(within(-1, 1, *wanted.shape)(generator), digits, parties)
    secret = [share(v, digits, parties, requires_grad=True) for v in values]
    wanted.backward(revealed(upstream))
    wanted = in_one_row([v.grad for v in known if v.grad is not None])
    with counted() as cost:
        made = in_one_row(call(*secret))
        if not made.requires_grad:
            if wanted.any():
                raise RuntimeError(f"{name} has a gradient in torch, and none here")
            return result
        made.backward(upstream)
        got = in_one_row([x.grad for x in secret if x.grad is not None])
        error = error_of(got, wanted, digits)
    return result._replace(gradient_error=error, gradient_cost=cost())


def share(values, digits, parties, requires_grad=False):
    """A tensor, shared."""
    *workers, provider = parties
    return values.fix_precision(precision_fractional=digits).share(
        *workers, crypto_provider=provider, protocol="semi2k", requires_grad=requires_grad
    )


def in_one_row(result):
    """The elements of a tensor, or of several."""
    parts = result if isinstance(result, (tuple, list)) else (result,)
    rows = [part.double().flatten() for part in parts]
    return torch.cat(rows) if len(rows) > 1 else rows[0]


def revealed(shared):
    """The float64 values of a shared tensor, which stays shared."""
    public = shared.get()
    digits = public.child.precision_fractional
    return public.child.child.double() / 10**digits


def error_of(got, wanted, digits):
    """How far a shared tensor is off, in units."""
    return (revealed(got) - wanted.detach()).abs().max().item() * 10**digits


@contextlib.contextmanager
def counted():
    """A function, to be called afterwards, that returns the `Cost` of what was computed.

    Of a run that was made anew the last attempt counts, so that the same costs the same each time.
    """
    messages, carry = [], Network.carry

    def recording(network, sender, receiver, message):
        messages.append((sender, receiver, wire.unpack(message)))
        return carry(network, sender, receiver, message)

    Network.carry = recording
    try:
        yield lambda: cost_of(messages)
    finally:
        Network.carry = carry


def cost_of(messages):
    """The `Cost` of messages, each a sender, a receiver and the fields."""
    rounds = opened = dealt = 0
    runs = [message for message in messages if "attempt" in message[2]]
    for _, messages_of_run in groupby(runs, lambda message: message[2]["run"]):
        messages_of_run = list(messages_of_run)
        last = max(fields["attempt"] for _, _, fields in messages_of_run)
        for sender, _, fields in messages_of_run:
            if fields["attempt"] != last:
                continue
            if fields["do"] == "open" and sender == PARTIES[0]:
                rounds += 1
                opened += len(fields["words"]) + len(fields["bits"])
            elif fields["do"] == "deal":
                dealt += len(fields["corrections"])
            elif fields["do"] == "result" and sender == PARTIES[0]:
                dealt -= len(fields["revealed"])
    return Cost(rounds, opened, dealt)


# ---- What is refused -----------------------------------------------------------------------------

# Calls on x, shared numbers (3, 4), and y, others of five digits, in the clear, each of which is an
# error.
REFUSED = (
    "x.item()",
    "bool(x.sum() > 0)",
    "x.numpy()",
    "x[0, x[0].argmax()]",
    "x[x > 0]",
    "x + y",
    "x / 0",
    "x ** 1.5",
    "x // 2",
    "x % 2",
    "torch.asin(x)",
    "x.median()",
    "x.norm(p=3)",
    "x.sort(stable=True, out=x)",
    "torch.div(x, 3, rounding_mode='floor')",
    "F.pad(x, (1, 1), mode='reflect')",
    "F.conv1d(x, x)",
    "F.conv2d(x.view(1, 1, 3, 4), x.view(1, 1, 3, 4), dilation=2)",
    "F.conv2d(x.view(1, 2, 3, 2), x.view(2, 1, 3, 2), groups=2)",
    "F.max_pool2d(x.view(1, 1, 3, 4), 2, ceil_mode=True)",
    "F.avg_pool2d(x.view(1, 1, 3, 4), 3, padding=1, count_include_pad=False)",
    "F.layer_norm(x, (4,))",
    "F.cross_entropy(x, torch.tensor([0, 1, 2]), weight=torch.ones(4))",
    "F.nll_loss(x, torch.tensor([0, 1, 2]), ignore_index=2)",
    "F.kl_div(x, x)",
    "x.grad.backward()",
    "x.sum().backward(create_graph=True)",
    "x.mul_(2)",
    "torch.autograd.grad(x.sum(), x)",
)


def refusal(call, parties):
    """The line that a call of `REFUSED` ends with: (kind of error, message)."""
    x, y = (share(torch.ones(3, 4) / 2, digits, parties, True) for digits in (DIGITS, FINER))
    x.grad = x.detach()
    try:
        eval(call, {"torch": torch, "F": F, "x": x, "y": y})
    except Exception as error:
        return type(error).__name__, str(error)
    raise RuntimeError(f"{call} was not refused")


# ---- Beside other systems ------------------------------------------------------------------------


def on_grid(low, high, *shape):
    """Multiples of 1/32 between bounds: 5 decimal digits have them exactly, and 5 binary ones."""
    numbers = within(low * 32 - 0.5, high * 32 + 0.5, *shape)
    return lambda generator: numbers(generator).round() / 32


class Compared(NamedTuple):
    """A function over a range, as text; `call` and `inputs` as an `Example` has them."""

    range: str
    call: object
    inputs: tuple


POSITIVE, EITHER = (on_grid(1 / 32, 100),), (on_grid(-8, 8),)
TEN = (on_grid(-8, 8, 128, 10),)
COMPARED = {  # by the name that the peers' scripts have for it
    "division": Compared("±8 / [1/32, 100]", lambda x, y: x / y, EITHER + POSITIVE),
    "reciprocal": Compared("[1/32, 100]", lambda x: x.reciprocal(), POSITIVE),
    "sqrt": Compared("[1/32, 100]", lambda x: x.sqrt(), POSITIVE),
    "rsqrt": Compared("[1/32, 100]", lambda x: x.rsqrt(), POSITIVE),
    "exp": Compared("[-8, 4]", lambda x: x.exp(), (on_grid(-8, 4),)),
    "log": Compared("[1/32, 100]", lambda x: x.log(), POSITIVE),
    "sigmoid": Compared("±8", lambda x: x.sigmoid(), EITHER),
    "tanh": Compared("±8", lambda x: x.tanh(), EITHER),
    "softmax": Compared("rows of ten, ±8", lambda x: x.softmax(1), TEN),
    "log_softmax": Compared("rows of ten, ±8", lambda x: x.log_softmax(1), TEN),
}
SYSTEMS = {  # by digits, or by a peer's environment and the arguments of its script
    5: "`semi2k`, 5 digits",
    6: "`semi2k`, 6 digits",
    ("crypten", "16"): "CrypTen, 16 bits",
    ("crypten", "17"): "CrypTen, 17 bits",
    ("spu", "17"): "SPU, 17 bits",
    ("spu", "18"): "SPU, 18 bits",
    ("spu", "18", "EXP_PADE"): "SPU, 18 bits, `EXP_PADE`",
}
LEAST = 0.01  # of a result that has a relative error


def arguments_of(compared):
    """The same for every system."""
    generator = torch.Generator().manual_seed(SEED)
    return [make(generator) for make in compared.inputs]


def answers_of_semi2k(digits, parties):
    """Function -> what it gives and takes, as `peers/functions.py` has it."""
    answers = {}
    for name, compared in COMPARED.items():
        shared = [share(values, digits, parties) for values in arguments_of(compared)]
        with counted() as cost:
            values = revealed(in_one_row(compared.call(*shared)))
        rounds, opened, dealt = cost()
        answers[name] = {"values": values, "rounds": rounds, "bytes": 2 * opened + dealt}
    return answers


def answers_of_peer(peer, *arguments):
    """Likewise; the `Unavailable` in their place where it cannot run."""
    print("running", peer, *arguments, file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "arguments.npz")
        arrays = {
            f"{name}-{i}": values.numpy().astype(numpy.float32)
            for name, compared in COMPARED.items()
            for i, values in enumerate(arguments_of(compared))
        }
        numpy.savez(path, **arrays)
        try:
            python = peers.make_environment(peer)
            command = [python, peers.SCRIPTS / f"functions_{peer}.py", path, *arguments]
            return json.loads(peers.call(command, "its run failed").splitlines()[-1])
        except peers.Unavailable as reason:
            return reason


def table_of_precision(answers):
    """The largest errors of each function under each system, as lines; `answers`: those of each of
    `SYSTEMS`, or why there are none."""
    yield line(["function", "over", *SYSTEMS.values()])
    yield line(["---"] * (2 + len(SYSTEMS)))
    for name, compared in COMPARED.items():
        wanted = in_one_row(compared.call(*arguments_of(compared)))
        yield line([f"`{name}`", compared.range, *(
            cell_of_precision(answers[system], name, wanted) for system in SYSTEMS
        )])  # fmt: skip


def cell_of_precision(answers, name, wanted):
    """Largest error, largest relative error; rounds, bytes an element."""
    if isinstance(answers, peers.Unavailable):
        return f"did not run: {answers}".replace("|", "/")
    off = (torch.as_tensor(answers[name]["values"], dtype=torch.float64) - wanted).abs()
    large = wanted.abs() >= LEAST
    relative = (off[large] / wanted.abs()[large]).max()
    sent = answers[name]["bytes"] / len(wanted)
    return f"{off.max():.1e}, {relative:.0e}; {answers[name]['rounds']}, {sent:,.0f}"


# ---- The page ------------------------------------------------------------------------------------

# In the order in which they are looked for: one imports another's functions.
MODULES = {
    pointwise: "Element by element",
    functions: "Functions",
    shapes: "Moves",
    reductions: "Sums and extremes",
    layers: "Layers",
    losses: "Softmax and losses",
}
PER_ELEMENT = pointwise, functions, shapes
ERRORS = f"error, {DIGITS} digits", f"error, {FINER} digits", "of the gradient"
COLUMNS = (
    *("operation", "run on", "range", "error below", *ERRORS),
    *("rounds", "opened", "dealt", "source"),
)


def names_by_operation():
    """Each operation's function -> the names it is registered under, the first being its own."""
    names = {}
    for name, function in operations.OPERATIONS.items():
        names.setdefault(function, []).append(name)
    return names


def module_of(function):
    """The module of an operation."""
    return next(module for module in MODULES if function in vars(module).values())


class Said(NamedTuple):
    """What an operation's docstring says of its range, its error and its source; "" where that is
    what its module says of all."""

    range: str
    error: str
    source: str


def said(function):
    """What is `Said` of an operation."""
    text = " ".join((inspect.getdoc(function) or "").split())
    paragraph = r"Range: (.*?)\.(?: Error: (.*?)\.)?(?: Rounds: .*? dealt\.)?(?: ([A-Z].*))?$"
    found = re.search(paragraph, text)
    return Said(*(part or "" for part in found.groups())) if found else Said("", "", "")


def said_of_all(module):
    """The paragraph "Range: ..." of a module, if it has one."""
    paragraphs = re.findall(r"^Range: .*?(?=\n\n|\Z)", module.__doc__.strip(), re.M | re.S)
    return " ".join(" ".join(paragraphs).split())


def row(function, names, run, finer=None):
    """An operation's line of the table, as cells by column; `finer`: its `Run` at more digits."""
    unit = math.prod(run.shapes[0]) if module_of(function) in PER_ELEMENT else 1
    own_words, (own, *others) = said(function), (f"`{name}`" for name in names)
    costs = [cost for cost in (run.cost, run.gradient_cost) if cost is not None]
    rounds, opened, dealt = (
        " / ".join(amount(count / per) for count in counts)
        for counts, per in zip(zip(*costs, strict=True), (1, unit, unit), strict=True)
    )
    cells = [
        f"{own} ({', '.join(others)})" if others else own,
        "; ".join(" × ".join(map(str, shape)) for shape in run.shapes),
        *own_words[:2],
        *(size_of_error(e) for e in (run.error, finer and finer.error, run.gradient_error)),
        *(rounds, opened, dealt, own_words.source),
    ]
    return dict(zip(COLUMNS, (cell.replace("|", "\\|") for cell in cells), strict=True))


def amount(count):
    """A number of bytes or rounds."""
    return f"{count:,.0f}" if count == int(count) or count >= 100 else f"{count:.1f}"


def size_of_error(error):
    """An error in units; what float64 itself is off is none."""
    if error is None:
        return "–"
    return f"{error:,.{0 if error >= 10 else 1}f}" if error >= 0.05 else "0"


def line(cells):
    """Of a table."""
    return f"| {' | '.join(cells)} |"


def table_of_operations(parties):
    """All operations, as lines."""
    rows = {module: [] for module in MODULES}
    for function, names in names_by_operation().items():
        run_, finer = run(names[0], DIGITS, parties), run(names[0], FINER, parties, False)
        rows[module_of(function)].append(row(function, names, run_, finer))
    for module, title in MODULES.items():
        bytes_ = "an element" if module in PER_ELEMENT else "in all"
        yield from (f"### {title}", "", f"{said_of_all(module)} Bytes are {bytes_}.".strip(), "")
        columns = [column for column in COLUMNS if any(row[column] for row in rows[module])]
        yield from (line(columns), line(["---"] * len(columns)))
        yield from (line([row[column] for column in columns]) for row in rows[module])
        yield ""


def table_of_refusals(parties):
    """What is refused, as lines."""
    yield from (line(["call", "answer"]), line(["---"] * 2))
    for call in REFUSED:
        kind, message = refusal(call, parties)
        yield line([f"`{call}`", f"{kind}: {message}"])


def show(name, lines, is_written):
    """Print a table, and put it into its place in the page if it is to be written."""
    table = "\n".join(lines).strip()
    print(table, end="\n\n")
    if not is_written:
        return
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    page = PAGE.read_text()
    before, after = page.split(begin)[0], page.split(end)[1]
    PAGE.write_text(f"{before}{begin}{table}{end}{after}")


def main():
    """Print tables, and write them if that is asked for."""
    parser = argparse.ArgumentParser(prog="operations", description=__doc__.splitlines()[0])
    parser.add_argument("--peers", action="store_true", help="compare with published systems")
    parser.add_argument("--write", action="store_true", help="put what is printed into the page")
    arguments = parser.parse_args()
    syft.TorchHook(torch)
    torch.set_num_threads(1)
    syft_binding.install()
    those = parties()
    if not arguments.peers:
        show("operations", table_of_operations(those), arguments.write)
        show("refused", table_of_refusals(those), arguments.write)
        return
    answers = {
        system: answers_of_semi2k(system, those)
        if isinstance(system, int)
        else answers_of_peer(*system)
        for system in SYSTEMS
    }
    show("precision", table_of_precision(answers), arguments.write)


if __name__ == "__main__":
    main()
