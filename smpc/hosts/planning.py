"""Makes a plan: the script is run once, without data and without parties, and what it asks for is
written down.

`Planning` takes the place of the network. It answers for the workers: done, or that nothing but
zeros is revealed; what a run asks for does not depend on that.
"""

import base64
import math
import secrets
import zlib

import numpy as np

from smpc.hosts.grammar import AGAIN, FORMAT
from smpc.hosts.plans import Plan
from smpc.semi2k.network import Network
from smpc.semi2k.owner import batch_label
from smpc.semi2k.program import Program
from smpc.semi2k.randomness import new_key
from smpc.semi2k.wire import OWNER, PROVIDER, WORKER, pack, raw, unpack
from smpc.semi2k.worker import label_of


class Planning(Network):
    """The network of a session that is only planned.

    Args:
        roster: of the session's ends.
        names: which -> the names of what an owner shares of a batch of that set, in order.
    Attributes:
        positions: for each run of the plan, (program's name, labels of its inputs, for each output
            the input that it is or None, who gets what is revealed), in order.
        restore: of each program that masks weights anew, when they are saved or loaded, a dict: the
            "program", hex, and for each of its "outputs" the input that it is.
        programs: name -> what `program.Program` reads.
    """

    def __init__(self, roster, names):
        super().__init__(roster)
        self.positions, self.restore, self.programs = [], [], {}
        self._names, self._labels, self._saved = names, {}, []

    @property
    def saves(self):
        """Whether a checkpoint is made."""
        return bool(self._saved)

    def counted(self):
        """Nothing is said."""

    def send(self, sender, messages):
        """Answer what is said to the workers; note what they would store and run."""
        first = self.roster.workers[0]
        for receiver, message in messages:
            fields, role = unpack(message), self.roster.role(receiver)
            verb = fields.pop("do")
            if role == PROVIDER and verb == "keys":
                self._give_keys(receiver)
            elif role == OWNER and verb == "share":
                self._share(receiver, **fields)
            elif role == WORKER:
                answer = getattr(self, f"_{verb}")(receiver == first, **fields)
                if answer is not None:
                    self.ends[sender].receive(receiver, answer)
                if verb == "run" and receiver == first and (reader := fields["to"]):
                    about = {"run": fields["run"], "attempt": fields["attempt"]}
                    self.ends[sender].receive(reader, pack("read", **about))

    def _give_keys(self, provider):
        """What an owner whose end is here masks is stored nowhere; it takes a key to do so."""
        for owner in self.roster.owners:
            if owner in self.ends:
                self.ends[owner].receive(provider, pack("key", key=new_key()))

    def _input(self, is_first, id, label, **about):
        self._labels[id] = label

    def _share(self, owner, ids, which, start, stop, digits):
        for id, name in zip(ids, self._names[which], strict=True):
            self._labels[id] = batch_label(owner, which, start, stop, name, digits)

    def _public(self, is_first, id, shape, values):
        self._labels[id] = label_of(values)

    def _save(self, is_first, ids, step, **about):
        self._saved = [self._labels[id] for id in ids]
        return pack("done", step=step)

    def _load(self, is_first, ids, step, **about):
        self._labels |= zip(ids, self._saved, strict=True)
        return pack("done", step=step)

    def _run(self, is_first, run, attempt, program, key, inputs, outputs, position, to, **about):
        if key is not None:
            self.programs[program] = key
        if is_first:
            kept = [inputs.index(id) if id in inputs else None for id in outputs]
            labels = [self._labels[id] for id in inputs]
            if position is None:
                restore = {"program": program.hex(), "outputs": kept}
                self.restore += [restore] if restore not in self.restore else []
            else:
                self.positions.append((program, labels, kept, to))
            for j, (id, i) in enumerate(zip(outputs, kept, strict=True)):
                self._labels[id] = f"{position}.{j}" if i is None else labels[i]
        reveals = [i for i in Program(self.programs[program]).instructions if i.op == "reveal"]
        size = 0 if to else sum(math.prod(i.params[0]) for i in reveals)
        zeros = raw([np.zeros(size, np.uint64)])
        return pack("result", run=run, attempt=attempt, revealed=zeros)


def plan_of(planning, configuration, script, arguments, weights, guarantee=None):
    """The `Plan` of what was noted.

    Args:
        planning: a `Planning`; `configuration`: of the parties.
        script: which it is for, and its `arguments`.
        weights: the arguments of `plans.initial_weights`; None: there are no public ones.
        guarantee: of a private training, as `grammar` has it: nothing of it is run again.
    """
    rows, positions = {}, []
    for position, (program, labels, kept, to) in enumerate(planning.positions):
        batches, inputs = [], []
        for label in labels:
            inputs.append(_in_short(label, position, batches))
        row = program.hex(), tuple(inputs), tuple(kept), to
        positions.append([rows.setdefault(row, len(rows)), *batches])
    programs = {
        name.hex(): base64.b64encode(zlib.compress(key, 9)).decode()
        for name, key in planning.programs.items()
    }
    names = ("program", "inputs", "outputs", "to")
    return Plan({
        "format": FORMAT,
        "nonce": secrets.token_hex(16),  # two trainings are two plans, each consented to
        "parties": {name: party.fingerprint for name, party in configuration.parties.items()},
        "script": script,
        "arguments": arguments,
        "weights": weights,
        "guarantee": guarantee,
        "again": 0 if guarantee else AGAIN,
        "programs": programs,
        "rows": [dict(zip(names, map(_plain, row), strict=True)) for row in rows],
        "positions": positions,
        "restore": planning.restore,
    })  # fmt: skip


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _in_short(label, position, batches):
    """A label as a row has it; adds to `batches` one that it is of and that is not there yet."""
    if label[0].isdigit():
        made_by, output = label.split(".")
        return f"{int(made_by) - position}.{output}"
    if label.startswith("public "):
        return label
    owner, which, items, rest = label.split(" ", 3)
    batch = f"{owner} {which} {items}"
    if batch not in batches:
        batches.append(batch)
    return f"{batches.index(batch)} {rest}"
