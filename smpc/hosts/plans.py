"""The plan: all that is run, on what, and what is revealed to whom; and a party's consent to it.

A plan is a list of positions. A position is a program, named by the SHA-256 of its instructions and
constants; where each of its inputs comes from; and who gets what it reveals. Inputs go by labels
that each party gives to what it stores, never by what a message calls them:

    alice-data train 0:64 images, 3 digits    of an owner's items
    public 9f86d0...                          a public value, by its SHA-256
    12.3                                      output 3 of position 12

In the file, positions that differ in their batches alone share a row, in which `-1.3` is output 3
of the position before, and `0 images, 3 digits` is of the first batch that the position names.

    python -m smpc.hosts show plan.json
"""

import base64
import collections
import hashlib
import json
import math
import re
import zlib
from typing import NamedTuple

from smpc import process
from smpc.arguments import path
from smpc.files import write_whole
from smpc.hosts import grammar
from smpc.hosts.configuration import ConfigurationError, host_of, read_text
from smpc.hosts.grammar import ARGUMENTS, PREDICTION
from smpc.privacy.accounting import Guarantee
from smpc.semi2k.program import Program, name_of
from smpc.semi2k.wire import Refused
from smpc.semi2k.worker import label_of

# The label of what may be in a checkpoint: of an output, or of a public value.
MADE = re.compile(r"\d+\.\d+|public [0-9a-f]{64}")


class PlanError(ConfigurationError):
    """A plan that is missing, damaged or not to be consented to; the message is one line."""


class Expected(NamedTuple):
    """What runs at a position.

    Attributes:
        name: of the program, bytes.
        inputs, outputs: labels; `kept`: for each output the input that it is, or None.
        numbers: how many are revealed, `to`: the id of who gets them, None for the orchestrator.
    """

    name: bytes
    inputs: tuple
    outputs: tuple
    kept: tuple
    numbers: int
    to: str | None


class Plan:
    """A plan.

    Args:
        content: what the file holds: format, nonce, parties (name -> fingerprint), arguments,
            script, weights, guarantee, again, programs (hex name -> base64 of zlib), rows,
            positions, restore.
    Attributes:
        digest: SHA-256 of the content, hex: two plans with the same are the same.
        programs: name -> what `program.Program` reads.
        restore: (name, kept) of each program that masks weights of a checkpoint anew, a list.
        batches: what `owner.batch_of` calls each that it is on, a set; `owners`: their ids.
        guarantee: of a private training, an `accounting.Guarantee`, as it says; else None.
    Raises:
        PlanError: it is no plan, or a program is not what its name says.
    """

    def __init__(self, content):
        self.content = content
        try:
            grammar.check(content)
            packed = content["programs"].items()
            self.programs = {bytes.fromhex(name): _unpacked(key) for name, key in packed}
            self.again = content["again"]
            self._revealed = {name: _numbers(name, key) for name, key in self.programs.items()}
            for position in range(len(self)):
                self.expected(position)
            self.restore = [
                (bytes.fromhex(restore["program"]), tuple(restore["outputs"]))
                for restore in content["restore"]
            ]
            if any(self._revealed[name] for name, _ in self.restore):
                raise PlanError("the program that masks a checkpoint anew reveals something")
        except (KeyError, ValueError, IndexError, zlib.error) as error:
            raise PlanError(f"it is no plan, or damaged: {error}") from error
        self.guarantee = None
        if said := content["guarantee"]:
            said = {name: value for name, value in said.items() if name != "workers"}
            said["correlation"] = tuple(said["correlation"])
            self.guarantee = Guarantee(**said)
        self.digest = hashlib.sha256(_canonical(content)).hexdigest()
        self.batches = {batch for _, *batches in content["positions"] for batch in batches}
        self.owners = {batch.split()[0] for batch in self.batches}

    def __len__(self):
        return len(self.content["positions"])

    def expected(self, position):
        """The `Expected` of a position, None beyond the last."""
        if not 0 <= position < len(self):
            return None
        row, *batches = self.content["positions"][position]
        row = self.content["rows"][row]
        inputs = tuple(_label(where, position, batches) for where in row["inputs"])
        kept = tuple(row["outputs"])
        outputs = tuple(f"{position}.{j}" if i is None else inputs[i] for j, i in enumerate(kept))
        name = bytes.fromhex(row["program"])
        return Expected(name, inputs, outputs, kept, self._revealed[name], row["to"])

    def check_parties(self, configuration):
        """Raise PlanError unless it was made for these parties."""
        known = {name: party.fingerprint for name, party in configuration.parties.items()}
        if self.content["parties"] != known:
            raise PlanError("it was made for other parties, or other certificates: make it anew")
        workers = len(configuration.workers)
        if self.guarantee and self.content["guarantee"]["workers"] != workers:
            raise PlanError(f"its guarantee is of other noise than that of {workers} workers")

    def check_items(self, owner, shapes):
        """Raise PlanError unless what it takes of an owner's items is what they have.

        Args:
            owner: its id; `shapes`: by set and name, an item's; see `parts.SHAPES`.
        """
        inputs = {name: Program(key).inputs for name, key in self.programs.items()}
        for position in range(len(self)):
            expected = self.expected(position)
            # (a run with more inputs, or fewer, is refused by itself)
            for label, (_, _, shape) in zip(expected.inputs, inputs[expected.name], strict=False):
                if not label.startswith(f"{owner} "):
                    continue
                _, which, _, name, *_ = label.replace(",", "").split()
                mine = shapes.get(which, {})
                if mine.get(name) != shape[1:]:
                    raise PlanError(
                        f"the plan takes {name} of shape {shape[1:]} of {which} items, and --data "
                        f"has {' and '.join(f'{n} of {s}' for n, s in mine.items()) or 'none'}"
                    )

    def check_weights(self):
        """Make the initial weights of the seed, as it says, and compare.

        Raises:
            PlanError: a public value that it starts from is not of these.
        """
        wanted = {
            label
            for position in range(len(self))
            for label in self.expected(position).inputs
            if label.startswith("public ")
        }
        weights = self.content["weights"]
        if wanted and not (weights and wanted <= set(initial_weights(**weights))):
            raise PlanError("its weights are not those that its seed makes: do not consent to it")

    def check_privacy(self):
        """Find from the programs that its guarantee covers them, and from its arguments that it is
        right; where it has none, that none was asked for. Takes seconds.

        Raises:
            PlanError: it does not, or is not.
        """
        arguments = self.content["arguments"]
        if self.guarantee is None:
            if arguments.get("private"):
                raise PlanError("it was made with --private, and guarantees nothing")
            return
        if self.again:
            raise PlanError("a position may be run again, and its guarantee covers it once")
        from smpc.privacy import coverage  # here, since it takes seconds to import

        of = {name: arguments[name] for name in ("private", "delta", "epochs", "clip")}
        programs = {name: Program(key) for name, key in self.programs.items()}
        positions = [self.expected(position) for position in range(len(self))]
        workers = self.content["guarantee"]["workers"]
        try:
            one = 10.0 ** arguments["precision_fractional"]
            update = coverage.Update(tuple(arguments["lr"]), one, workers)
            coverage.check_accounting(self.guarantee, workers, **of)
            coverage.check(programs, positions, self.restore, self.guarantee, update)
        except (ValueError, TypeError, ArithmeticError, LookupError) as error:
            # (a program of strange parameters may make any of these)
            raise PlanError(f"its guarantee does not hold: {error}") from error

    def save(self, path):
        """Write it to `path`, a pathlib.Path."""
        write_whole(path, _canonical(self.content) + b"\n")


def _canonical(content):
    """JSON with the positions a line each, and so readable and compact."""
    compact = {"ensure_ascii": True, "sort_keys": True, "separators": (",", ": ")}
    parts = []
    for name in sorted(content):
        value = content[name]
        items = value if name in ("positions", "rows") else None
        text = (
            json.dumps(value, **compact)
            if items is None
            else "[\n" + ",\n".join(json.dumps(item, **compact) for item in items) + "\n]"
        )
        parts.append(f"{json.dumps(name)}: {text}")
    return ("{\n" + ",\n".join(parts) + "\n}").encode()


def _unpacked(text):
    unpacker = zlib.decompressobj()
    key = unpacker.decompress(base64.b64decode(text, validate=True), 1 << 26)
    if not unpacker.eof:
        raise ValueError("a program is too large, or cut off")
    return key


def _numbers(name, key):
    """How many numbers a program reveals."""
    if name_of(key) != name:
        raise PlanError(f"program {name.hex()} is not what its name says")
    reveals = (i for i in Program(key).instructions if i.op == "reveal")
    return sum(math.prod(i.params[0]) for i in reveals)


def _label(where, position, batches):
    """The label of an input that a row has in short."""
    first, _, rest = where.partition(" ")
    if first.startswith("-"):
        ago, output = first.split(".")
        return f"{position + int(ago)}.{int(output)}"
    return f"{batches[int(first)]} {rest}" if first.isdigit() else where


def read(path):
    """The `Plan` in a file.

    Raises:
        PlanError: there is none.
    """
    text = read_text(path)
    try:
        return Plan(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path}: it is no plan ({error})") from error
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error


def follow(parser, args):
    """Give a script the arguments that its plan was made with.

    Args:
        parser: that `args` came from; `args`: whose `plan` is the plan's file.
    Raises:
        PlanError: there is no plan there, it is for another script, or another value was given for
            one of them.
    """
    content = read(args.plan).content
    planned, script = content["arguments"], content["script"]
    if script != parser.prog:
        raise PlanError(f"{args.plan}: it was made for {script}, and not for {parser.prog}")
    for name in ARGUMENTS[script]:
        given = getattr(args, name)
        if given not in (planned[name], parser.get_default(name)):
            option = "--" + name.replace("_", "-")
            raise PlanError(f"{args.plan}: it was made with {option} {planned[name]}, not {given}")
        setattr(args, name, planned[name])
    if planned.get("save_model") is False and args.save_model:
        raise PlanError(f"{args.plan}: it was made without --save-model, and reveals no weights")


def initial_weights(**weights):
    """The labels of a network's initial weights; see `made_weights`."""
    return list(map(label_of, made_weights(**weights)))


def made_weights(seed, drawn, linear, digits):
    """A network's initial weights, each made as the script makes them: int64 arrays.

    Args:
        seed: of torch's generator; `drawn`: numbers drawn from it before.
        linear: (inputs, outputs) of each layer; `digits`: of fixed precision.
    """
    import torch  # only who has weights to make needs it

    from smpc.loaders import draw

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draw(drawn)
        layers = [torch.nn.Linear(*sizes) for sizes in linear]
    parameters = [p.detach() for layer in layers for p in layer.parameters()]
    return [(p * 10**digits).long().numpy() for p in parameters]


class Consent:
    """What a party agrees to run: the plan's positions, each as often as it allows.

    Args:
        plan: a `Plan`; None: anything.
        journal: a `journal.Journal`, which has what was run in earlier sessions.
    Attributes:
        times: position -> how many times it has revealed what it reveals.
        closed: the position up to which none is run again.
        last: the position that what is stored now comes from.
    """

    def __init__(self, plan, journal):
        self.plan, self._journal = plan, journal
        self.times, self.closed, self.last, self._saved = collections.Counter(), -1, -1, {}
        current = None
        for entry in journal.entries() if plan else ():
            current = entry["plan"] if entry["what"] == "session" else current
            if current == plan.digest:
                self._follow(entry)
        self.last = -1

    def _follow(self, entry):
        """What an entry in the journal says of this plan."""
        match entry["what"]:
            case "session":
                self.last = -1
            case "revealed":
                self._ran(entry["position"])
            case "saved":
                self._save(entry["step"], entry["keep"], entry["position"])
            case "loaded":
                self.last = entry["position"]

    def _ran(self, position):
        if position is not None:
            self.times[position] += 1
            self.last = position

    def _save(self, step, keep, position):
        self._saved = {step: position} | {k: p for k, p in self._saved.items() if k == keep}
        self.closed = max(self.closed, self._saved.get(keep, -1))

    def check(self, order, labels, kept):
        """Raise Refused unless this may run now.

        Args:
            order: a `semi2k.run.Order`; `labels`: of its inputs.
            kept: for each output the input under whose number it is stored, or None.
        """
        if self.plan is not None:
            self._check(order, labels, kept)
        run, attempt = order.address
        about = {"position": order.position, "program": order.name.hex()}
        self._journal.note("run", **about, run=run, attempt=attempt)

    def _check(self, order, labels, kept):
        if order.position is None:
            if (order.name, tuple(kept)) not in self.plan.restore or order.to is not None:
                raise Refused("the plan has no such run")
            return
        expected = self.plan.expected(order.position)
        found = order.name, tuple(labels), tuple(kept), order.to
        if expected is None or found != (
            expected.name, expected.inputs, expected.kept, expected.to
        ):  # fmt: skip
            raise Refused(f"the plan has something else at position {order.position}")
        if order.position <= self.closed or self.times[order.position] > self.plan.again:
            once = ", and its guarantee covers it once: make a new plan" * bool(self.plan.guarantee)
            raise Refused(f"position {order.position} of the plan has been run already{once}")

    def reveal(self, order, numbers):
        """Note a run that ends now; called before anything that it reveals leaves this host."""
        run, attempt = order.address
        about = {"position": order.position, "program": order.name.hex(), "run": run}
        about |= {"attempt": attempt, "numbers": numbers, "to": order.to or order.sender}
        self._journal.note("revealed", durable=True, **about)
        self._ran(order.position)

    def anew(self, order):
        """Note that an attempt is broken off, to be made anew."""
        run, attempt = order.address
        self._journal.note("made anew", run=run, attempt=attempt)

    def check_save(self, labels):
        """Raise Refused unless what has these labels may be in a checkpoint: under a plan, what
        its positions make, and nobody's data."""
        if self.plan is None:
            return
        if not self.plan.restore or not all(map(MADE.fullmatch, map(str, labels))):
            raise Refused("the plan has no such checkpoint")

    def save(self, step, keep):
        """Note that a checkpoint is made: what came before the one that is kept beside it is not
        run again."""
        self._journal.note("saved", durable=True, step=step, keep=keep, position=self.last)
        self._save(step, keep, self.last)

    def load(self, step):
        """Note that a checkpoint is loaded.

        Raises:
            Refused: it is not of this plan.
        """
        if self.plan is not None and step not in self._saved:
            raise Refused(f"no checkpoint of step {step} was made under this plan")
        self.last = self._saved.get(step, -1)
        self._journal.note("loaded", step=step, position=self.last)


# ---- Looking at a plan ---------------------------------------------------------------------------


def arguments(parser):
    """Add the options of `show`."""
    parser.add_argument("plan", type=path, help="file, made by --write-plan")


def main(args):
    """Print a plan in words; check that its weights are made from its seed, and what it
    guarantees."""
    plan = read(args.plan)
    plan.check_weights()
    plan.check_privacy()
    with process.to_stdout():
        print(summary(plan))


def summary(plan):
    """A plan in words."""
    content = plan.content
    lines = [f"plan {plan.digest}", "", "parties:"]
    for name, fingerprint in content["parties"].items():
        lines.append(f"  {name:<20}{bytes.fromhex(fingerprint).hex(' ', 2)}")  # to be read aloud
    lines += ["", _of_the_weights(content["weights"]), ""]
    arguments = " ".join(f"{k}={v}" for k, v in content["arguments"].items())
    lines += [f"made for {content['script']} with: {arguments}", ""]
    if plan.guarantee:
        lines += [*plan.guarantee.lines(), f"Noise is added by {content['guarantee']['workers']} "
                  "workers, each its own, on its own host; checked", ""]  # fmt: skip
    again = f", and after a failure up to {plan.again} times more" * bool(plan.again)
    lines.append(f"{len(plan)} positions, each run once{again}:")
    first = 0
    while first < len(plan):
        row, *batches = content["positions"][first]
        last = first
        while last + 1 < len(plan) and content["positions"][last + 1][0] == row:
            last += 1
        expected = plan.expected(first)
        to = _name(expected.to)
        owners = sorted({batch.split()[0] for position in content["positions"][first : last + 1]
                         for batch in position[1:]})  # fmt: skip
        span = f"{first}" if first == last else f"{first} to {last}"
        lines.append(
            f"  {span:<12} program {expected.name.hex()[:8]} on {len(batches)} batch(es) of "
            f"{' and '.join(owners) or 'nobody'}: reveals {expected.numbers} number(s) to {to}"
        )
        first = last + 1
    totals = collections.Counter()
    for position in range(len(plan)):
        expected = plan.expected(position)
        totals[_name(expected.to)] += expected.numbers
    lines += ["", "revealed in all: " + ", ".join(f"{n:,} to {to}" for to, n in totals.items())]
    if content["script"] == PREDICTION:
        lines[-1] += f"; meant as the digits of {content['arguments']['n_test_items']:,} items"
    return "\n".join(lines)


def _name(end):
    """Of who gets what is revealed, by the id of the end; None is the orchestrator."""
    return "the server" if end is None else host_of(end)


def _of_the_weights(weights):
    if weights is None:
        return "weights: the server's, which it shares masked"
    sizes = " ".join(f"{i}x{o}" for i, o in weights["linear"])
    return f"weights: made from seed {weights['seed']}, layers {sizes}; checked"
