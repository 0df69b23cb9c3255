"""The options of train_encrypted.py. What can only give a wrong result is refused in one line."""

import argparse
import math
import unicodedata
from collections.abc import Callable
from typing import NoReturn

from smpc import compat, mnist
from smpc.process import fail, to_stdout

# Decimal digits of fixed precision that each protocol can compute with. Fewer than two round every
# weight of the first layer, at most 1/28, to 0. With more than the most, `snn` and `fss` go wrong:
# they divide each share on its own, which errs by 2^64 / 10^digits with probability |x| / 2^64 an
# element, x being a product before it is divided, so on the scale of 10^(2 * digits).
PRECISIONS = {"semi2k": range(2, 8), "snn": range(2, 6), "fss": range(2, 6)}

MOST_WORKERS = 5  # under semi2k

# So many items are shared at once and stay shared, at about 40 kB each with what is kept beside a
# share; of more, each batch is shared when it is needed. Then there is no moment from which a
# transcript is that of the parties alone, without the owners of the data.
HELD_ITEMS = 2048


class Parser(argparse.ArgumentParser):
    """An `argparse.ArgumentParser` whose errors are one line, without the usage before it."""

    def __init__(self, description, program="train_encrypted.py"):
        super().__init__(
            program, description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        """Called by argparse for whatever it cannot parse."""
        fail(message, self.prog)

    def print_help(self, file=None):
        """Called by argparse for --help; unlike argparse's own, it does not pass over an error."""
        with to_stdout():
            print(self.format_help(), end="", file=file)


def path(text: str) -> str:
    """An argparse type: what can be a path and be told in a line, in UTF-8."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path")
    kinds = set(map(unicodedata.category, text))
    if "Cs" in kinds:  # how Python reads what is not UTF-8
        raise argparse.ArgumentTypeError(f"not UTF-8: {text!a}")
    if kinds & {"Cc", "Zl", "Zp"}:
        raise argparse.ArgumentTypeError(f"a path with control characters: {text!a}")
    return text


def positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    """An argparse type: the value is finite and above 0."""

    def parse(text):
        value = kind(text)
        if not 0 < value < math.inf:
            raise ValueError
        return value

    parse.__name__ = f"positive {kind.__name__}"  # for "invalid positive int value: '0'"
    return parse


def check(parser: Parser, args: argparse.Namespace) -> argparse.Namespace:
    """Refuse arguments that are each well-formed and cannot be computed with.

    Args:
        parser: the one that they came from.
        args: of `parse_training`.
    Returns:
        the same.
    """
    check_training_on_hosts(parser, args)
    check_hosts(parser, args)
    check_items(parser, "train", args.n_train_items, mnist.N_TRAIN, args.batch_size)
    check_items(parser, "test", args.n_test_items, mnist.N_TEST, args.test_batch_size)
    if args.transcript and (most := max(args.n_train_items, args.n_test_items)) > HELD_ITEMS:
        parser.error(f"--transcript: a run of {most} items is too long to record, use {HELD_ITEMS}")
    semi2k = args.protocol == "semi2k"
    if not 2 <= args.n_workers <= (MOST_WORKERS if semi2k else 2):
        most = f"2 to {MOST_WORKERS}" if semi2k else "2"
        parser.error(f"--n-workers {args.n_workers}: {args.protocol} is between {most} workers")
    if args.exact_truncation and not semi2k:
        parser.error(f"--exact-truncation: --protocol {args.protocol} has none, use semi2k")
    if args.resume and not (args.checkpoint or args.parties):
        parser.error("--resume: say with --checkpoint DIR what to go on from")
    if args.checkpoint and not semi2k:
        parser.error(f"--checkpoint: --protocol {args.protocol} has none, use semi2k")
    check_seed(parser, args.seed)
    if args.protocol == "fss" and not compat.fss_is_available():
        parser.error(
            "--protocol fss needs shaloop, which has a wheel for x86-64 Linux alone: use another"
        )
    if len(args.lr) > args.epochs:
        parser.error(f"--lr: {len(args.lr)} rates for {args.epochs} epochs")
    digits = args.precision_fractional
    check_digits(parser, digits, args.protocol)
    _check_privacy(parser, args)
    unit = 10**-digits
    if (least := min(args.lr)) < unit * (1 - 1e-6):
        parser.error(
            f"--lr {least:g} is 0 in fixed precision with {digits} decimal digits: "
            f"use {unit:g} or more, or more digits"
        )
    if (most := max(args.lr)) * 10 ** (2 * digits) >= 2**52:
        parser.error(f"--lr {most:g}: products overflow the ring with {digits} decimal digits")
    return args


def learning_rate(args, epoch: int) -> float:
    """That of an epoch, the first being 1; the last that is given is of all further ones."""
    return args.lr[min(epoch, len(args.lr)) - 1]


def parse_training(
    argv: list[str] | None, description: str, values: object, activations: dict[str, Callable]
) -> argparse.Namespace:
    """The arguments of train_encrypted.py, checked.

    Args:
        argv: what was given on the command line; None: ask `sys`.
        description: its first line is for --help.
        values: the tutorial's; each is the default of an option.
        activations: by the names that --activation takes.
    """
    parser = Parser(description.split("\n")[0])
    _add_tutorial(parser, values)
    add = parser.add_argument
    add("--activation", choices=list(activations), default="relu", help="of the hidden layers")
    add(
        "--protocol",
        choices=list(PRECISIONS),
        default="semi2k",
        help="snn: SecureNN; fss: function secret sharing; see docs/options.md",
    )
    add("--n-workers", type=int, default=2, help="workers that hold shares: 2 to 5 under semi2k")
    add(
        "--exact-truncation",
        action="store_true",
        help="semi2k: make no run anew; see docs/protocol.md",
    )
    add("--data-dir", type=path, default="./data", help="folder that holds MNIST/raw/")
    add("--out", type=path, default="results", help="folder for run.json and accuracy.png")
    add("--transcript", type=path, metavar="FILE", help="record what each party sees, for audit")
    add("--checkpoint", type=path, metavar="DIR", help="keeps each party's shares of the weights")
    every = positive(int)
    add("--checkpoint-every", type=every, default=100, help="batches, and at the end of an epoch")
    add("--resume", action="store_true", help="go on from the checkpoint")
    add("--save-model", type=path, metavar="FILE", help="reveal the trained weights to their owner")
    add("--plain-twin", action="store_true", help="train the same network in the clear beside it")
    add_privacy(parser)
    add_hosts(parser)
    return check(parser, parser.parse_args(argv))


def _add_tutorial(parser, values):
    """Add an option for each of the tutorial's arguments."""
    count, default = positive(int), values
    add = parser.add_argument
    add("--epochs", type=count, default=default.epochs, help="passes over the training items")
    items = "training items, of MNIST's 60,000"
    add("--n-train-items", type=count, default=default.n_train_items, help=items)
    items = "test items, of MNIST's 10,000"
    add("--n-test-items", type=count, default=default.n_test_items, help=items)
    add("--batch-size", type=count, default=default.batch_size, help="training items a step")
    size = "test items a batch"
    add("--test-batch-size", type=count, default=default.test_batch_size, help=size)
    rates = {"type": positive(float), "nargs": "+", "default": [default.lr]}
    add("--lr", **rates, help="learning rate; of several each is an epoch's")
    add("--seed", type=int, default=default.seed, help="seed of the initial weights")
    interval = "reveal the loss of every so many batches"
    add("--log-interval", type=count, default=default.log_interval, help=interval)
    digits = "decimal digits of fixed precision"
    add("--precision-fractional", type=int, default=default.precision_fractional, help=digits)


def add_privacy(parser: Parser):
    """Add a script's options for a training that is differentially private."""
    add = parser.add_argument
    add(
        "--private",
        type=positive(float),
        metavar="EPSILON",
        help="of differential privacy: docs/privacy.md",
    )
    add("--delta", type=positive(float), default=1e-5, help="of --private")
    add(
        "--clip",
        type=positive(float),
        default=8.0,
        help="--private: norm of an item's gradient, at most",
    )
    add("--momentum", type=float, default=0.0, help="--private: momentum of SGD")


def _check_privacy(parser, args):
    """Refuse what a private training cannot have, and its options where there is none."""
    if not args.private:
        for name in ("delta", "clip", "momentum"):
            if getattr(args, name) != parser.get_default(name):
                parser.error(f"--{name}: is of a private training, say with --private EPSILON")
        return
    if args.protocol != "semi2k":
        parser.error(f"--private: --protocol {args.protocol} has none, use semi2k")
    if args.clip < 0.02:
        parser.error(f"--clip {args.clip:g} is taken up by rounding: use 0.02 or more")
    from smpc.privacy import accounting  # here, since few runs need it

    try:
        accounting.check(args.private, args.delta)
    except ValueError as error:
        parser.error(f"--private: {error}")
    if not 0 <= args.momentum < 1:
        parser.error(f"--momentum {args.momentum:g}: use 0 to below 1")


def add_hosts(parser: Parser):
    """Add a script's options for parties that are on hosts of their own."""
    add = parser.add_argument
    add("--parties", type=path, metavar="FILE", help="on hosts of their own: docs/deployment.md")
    add("--plan", type=path, metavar="FILE", help="what the parties have agreed to run and reveal")
    add("--write-plan", type=path, metavar="FILE", help="make that plan, without data or hosts")
    add("--home", type=path, metavar="DIR", help="of the server's key, by default beside --parties")
    add("--time-limit", type=positive(float), default=60, help="seconds for a party to answer in")


def check_hosts(parser: Parser, args: argparse.Namespace):
    """Refuse options of `add_hosts` that do not go together; follow the plan there."""
    alone = ("plan", "write_plan", "home")
    if given := [name for name in alone if getattr(args, name) and not args.parties]:
        parser.error(f"--{given[0].replace('_', '-')}: say with --parties FILE who takes part")
    if args.plan and args.write_plan:
        parser.error("--write-plan makes a plan, and --plan follows one: give one of them")
    if args.plan:
        from smpc.hosts import plans  # here, since only hosts need it

        plans.follow(parser, args)


def check_training_on_hosts(parser: Parser, args: argparse.Namespace):
    """Refuse what a training cannot have where parties are on hosts of their own."""
    if not args.parties:
        return
    if args.protocol != "semi2k":
        parser.error(f"--protocol {args.protocol} sends pickles, which hosts run: use semi2k")
    if args.n_workers != parser.get_default("n_workers"):
        parser.error("--n-workers: on hosts they are those of the parties file")
    if args.plain_twin:
        parser.error("--plain-twin: the data is at its owners, and not here")
    if args.transcript and args.write_plan:
        parser.error("--write-plan: nothing is said that could be recorded, leave out --transcript")
    if args.resume and args.write_plan:
        parser.error("--write-plan: a plan is of a whole run, leave out --resume")


def check_seed(parser: Parser, seed: int):
    """Refuse a seed that torch's generator does not take."""
    if not 0 <= seed < 2**63:
        parser.error(f"--seed {seed}: use 0 to 2^63 - 1")


def check_items(parser: Parser, name: str, items: int, available: int, batch_size: int):
    """Refuse more "train" or "test" items than there are, or a batch of more than those."""
    if items > available:
        parser.error(f"--n-{name}-items {items}: MNIST has {available}")
    if batch_size > items:
        parser.error(f"a {name} batch of {batch_size} is larger than the {items} {name} items")


def check_digits(parser: Parser, digits: int, protocol: str):
    """Refuse a precision that `PRECISIONS` excludes."""
    allowed = PRECISIONS[protocol]
    if digits < allowed[0]:
        parser.error(
            f"--precision-fractional {digits} rounds the weights to 0: use {allowed[0]} or more"
        )
    if digits > allowed[-1]:
        parser.error(
            f"--precision-fractional {digits}: products overflow the ring with {protocol}, "
            f"use {allowed[-1]} or less"
        )
