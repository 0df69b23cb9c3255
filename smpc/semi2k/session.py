"""The orchestrator's end: what is to be computed, and who is asked for it.

It holds the graph and the numbers of what the workers store, compiles what a value to reveal needs,
has the provider deal and the workers run it, and receives shares of what is revealed, and nothing
else. For the simulation `Session.simulated` also makes the other parties' ends, on one network.
"""

import itertools
import math
import os
import time
import weakref
from collections import OrderedDict

import numpy as np

from smpc.semi2k import wire
from smpc.semi2k.compiler import compiled
from smpc.semi2k.graph import Graph, ancestors, described
from smpc.semi2k.network import Network
from smpc.semi2k.owner import Owner
from smpc.semi2k.program import MOVES
from smpc.semi2k.provider import AHEAD, Provider
from smpc.semi2k.wire import Refused, Roster, pack, raw, words
from smpc.semi2k.worker import Worker, label_of

OWNERS = ("owners",)  # one end for all owners of data and model: the script, here, plays them all
MOST_WORKERS = 5
# Operations that nothing is opened or dealt for.
LOCAL = {"add", "sub", "scaled", "kept", "sum", "cat", "scatter", "fold", *MOVES}


class Session:
    """The orchestrator's side of two to five workers and a crypto provider.

    Args:
        roster: everybody's ids; `network`: what carries messages between them: a `Network`, or
            what has its `send`, `wait`, `ends` and `counters`.
    Attributes:
        graph: the `Graph` of what has been computed and is to be.
        exact: whether every truncation is exact, so that no run is ever made anew.
        position: of the next run in the plan that the parties have agreed on; None without one.
        owner: the id of the owner, whose end is here, that shares what is to be shared; None: it is
            public, such as weights that nobody has trained yet.
        labels: an iterator over what the values that this owner shares are called in a plan; those
            beyond its end are called nothing.
        saves: how many times the workers have saved their shares.
    """

    ROLE = wire.ORCHESTRATOR
    # Pending nodes hold no memory at the workers, but running them all at once does: beyond this
    # many elements they are computed without waiting for a value to be revealed.
    MOST_PENDING = 1 << 23
    # What nobody asks for, such as the gradient of the images, mostly dies with its step. What is
    # left pending this often is computed, since it would hold on to more at every step.
    PATIENCE = 3
    MOST_PROGRAMS = 64  # that the ends know; the one not used for longest is forgotten
    MOST_ATTEMPTS = 100  # a run needs a second one in 32 at most

    def __init__(self, roster, network, owner=None):
        self.roster, self.network, self.owner = roster, network, owner
        network.ends[roster.orchestrator] = self
        self.graph, self.exact = Graph(), False
        self.position, self.saves, self.labels = None, 0, iter(())
        self._reader = None  # the owner that gets what is revealed; None: it comes here
        self._numbers = itertools.count()
        self._known, self._to_forget = OrderedDict(), []  # programs that all ends know
        self._next_run, self._counts = 0, []
        self._plans = OrderedDict()
        self._dead, self._wanted, self._pending = [], [], 0
        self._replies, self._awaited = {}, {}
        self._make_keys()

    @classmethod
    def simulated(cls, orchestrator, workers, provider):
        """A session whose parties, with these ids, are all in this process."""
        roster = Roster(orchestrator, provider, tuple(workers), OWNERS)
        ids = (*workers, provider, orchestrator, *OWNERS)
        if len(set(ids)) < len(ids):
            raise ValueError(f"the parties of semi2k have different names, not {', '.join(ids)}")
        network = Network(roster)
        network.ends |= {id: Worker(id, roster) for id in workers}
        network.ends[provider] = Provider(provider, roster)
        network.ends |= {id: Owner(id, roster) for id in OWNERS}
        return cls(roster, network, *OWNERS)

    def _make_keys(self):
        keys = pack("keys", owners=self.roster.owners)
        self.network.send(self.roster.orchestrator, [(self.roster.provider, keys)])
        self._process = os.getpid()

    def _send(self, messages):
        if os.getpid() != self._process:  # a fork: the parent goes on with the keys there were
            self._make_keys()
        self.network.send(self.roster.orchestrator, messages)

    def receive(self, sender, message):
        """Take a worker's answer, or an owner's that it has read; nothing is said to it."""
        verb, fields = wire.read(message, self.roster.role(sender), self.ROLE)
        about = self._awaited.get(verb)
        if about is None or about.items() - fields.items() or sender in self._replies:
            raise Refused(f"{sender} was not asked for this {verb}, or has answered already")
        self._replies[sender] = verb, fields
        return []

    def _ask_workers(self, message, verbs, **about):
        """Send all workers the same; their answers, in order: (verb, fields).

        Args:
            verbs: an answer is one of these, in which "read" is that of who gets what is revealed;
                `about`: fields that it has.
        """
        self._replies, self._awaited = {}, dict.fromkeys(verbs, about)
        try:
            self._send([(worker, message) for worker in self.roster.workers])
            self.network.wait(lambda: not self._missing("read" in verbs))
        finally:
            self._awaited = {}
        if missing := self._missing("read" in verbs):
            raise RuntimeError(f"no answer came from {', '.join(missing)}")
        return [self._replies[worker] for worker in self.roster.workers]

    def _missing(self, is_read):
        """Whose answer has not come: of an attempt that is broken off nothing is read."""
        missing = [worker for worker in self.roster.workers if worker not in self._replies]
        if is_read and self._reader not in self._replies:
            broken_off = any(verb == "anew" for verb, _ in self._replies.values())
            missing += [] if broken_off else [self._reader]
        return missing

    # ---- sharing, keeping and forgetting

    def share(self, values):
        """Have the owner share an int64 array, or make it known where there is none: its node."""
        self._send([])

        def say(id):
            if self.owner is not None:
                owner = self.network.ends[self.owner]
                self.network.wait(lambda: owner.has_key)
                shared = owner.share(id, values, next(self.labels, None))
                self.network.send(self.owner, shared)
                return
            flat = raw([np.array(values, dtype=np.int64, order="C").view(np.uint64)])
            about = {"id": id, "shape": values.shape}
            known = pack("public", **about, label=label_of(flat))
            self._send([(self.roster.provider, known)])
            public = pack("public", **about, values=flat)
            self._send([(worker, public) for worker in self.roster.workers])

        (node,) = self._stored([values.shape], say)
        return node

    def ask_to_share(self, owner, shapes, **which):
        """Have an owner share values of these shapes that it has: their nodes.

        Args:
            which: the fields of "share" in `wire.GRAMMAR` that say which values.
        """
        return self._stored(
            shapes, lambda *ids: self._send([(owner, pack("share", ids=ids, **which))])
        )

    def _stored(self, shapes, say):
        """Nodes of masked values of these shapes, which come to be stored by what `say`, called
        with their ids, sends."""
        ids = [next(self._numbers) for _ in shapes]
        try:
            say(*ids)
        except BaseException:  # whoever has heard of the values forgets them
            self._dead += ids
            raise
        pairs = zip(ids, shapes, strict=True)
        return [self.graph.stored(id, shape, "masked", self._dead.append) for id, shape in pairs]

    def keep_shares_in(self, folder):
        """Where each worker that is here has its checkpoints: in a folder of its own in `folder`;
        where it is on a host of its own, that is its own affair."""
        for worker in self.roster.workers:
            if worker in self.network.ends:
                self.network.ends[worker].folder = folder / worker

    def save(self, nodes, run_id, step, keep):
        """Have each worker write its shares of `nodes` to its file; see `Worker._save`."""
        for node in nodes:
            self.want(node)
        if self._wanted:
            self.compute()
        fields = {"ids": [node.id for node in nodes], "counts": self._counts, "keep": keep}
        self._ask_workers(pack("save", run_id=run_id, step=step, **fields), ["done"], step=step)
        self.saves += 1
        self._mask([node for node in nodes if node.form == "share"])

    def load(self, shapes, run_id, step):
        """New nodes for the values, of these shapes, whose shares the workers find in their files,
        and mask anew; of the position after which they were saved.

        Raises:
            CheckpointError: see `Worker._load`.
        """
        shapes = [tuple(shape) for shape in shapes]
        about = {"run_id": run_id, "step": step, "shapes": shapes}
        nodes = self._stored(
            shapes,
            lambda *ids: self._ask_workers(pack("load", ids=ids, **about), ["done"], step=step),
        )
        for node in nodes:
            node.form = "share"
        self._mask(nodes)
        return nodes

    def _mask(self, shares):
        """Have values that are stored as shares masked, as they are both after a save and after it
        was loaded; in a run of its own, at no position of a plan."""
        if shares:
            self._compute([], None, [(node, True) for node in shares], None)

    # ---- computing

    def want(self, node, factor=True):
        """Have `node` stored at the end of the next run: a parameter after its update.

        Args:
            factor: whether it is to be a factor, so that the workers need shares of its mask.
        """
        if node.pending:
            self._wanted.append((weakref.ref(node), factor))

    def note(self, node):
        """Called for each new node that a tensor refers to; computes when too much is pending."""
        takes_memory = node.pending and node.op not in MOVES
        self._pending += node.size if takes_memory else 0
        if self._pending > self.MOST_PENDING:
            for pending in list(self.graph.pending.values()):
                if pending.handles:
                    self.want(pending, factor=False)
            self.compute()
        return node

    def reveal(self, node):
        """The value of `node`: int64, of its shape. The workers' shares of it come here."""
        if node.public:
            values, factor = node.values
            return np.array([round(int(v) * factor) for v in values.flat], np.int64).reshape(
                node.shape
            )
        return self.compute(node).view(np.int64)

    def reveal_to(self, node, reader):
        """Have the value of `node` revealed to an owner, and to nobody else; until it has read
        it."""
        self._reader = reader
        try:
            self.compute(node)
        finally:
            self._reader = None

    def compute(self, reveal=None):
        """Compute what is wanted, a node to reveal, and what comes with them at no cost.

        Returns:
            the revealed value, a uint64 array, or None if there is nothing to reveal.
        Raises:
            RuntimeError, Refused, or whatever a party's end raises: this run is over, nothing of
            it counts, and the next can be asked for.
        """
        wanted = {node: factor for ref, factor in self._wanted if (node := ref()) and node.pending}
        for node in self.graph.pending.values():
            if node.waited >= self.PATIENCE:
                wanted.setdefault(node, False)
        order = ancestors(([] if reveal is None else [reveal]) + list(wanted))
        order += self._free_of_charge(order)
        revealed = self._compute(order, reveal, list(wanted.items()), self.position)
        if self.position is not None:
            self.position += 1
        self._wanted, self._pending = [], 0
        for node in self.graph.pending.values():
            node.waited += node.op not in MOVES
        return revealed

    def _compute(self, order, reveal, wanted, position):
        """Compute `order`, as the `position` of a plan, and have its results stored."""
        nodes, plan = self._plan(order, reveal, wanted, self._still_referred_to(order))
        outputs = [nodes[stored.node] for stored in plan.stored]
        ids = [next(self._numbers) if node.pending else node.id for node in outputs]
        inputs = [nodes[number].id for number in plan.inputs]
        shapes = () if reveal is None else (reveal.shape,)
        revealed = self._run(plan, inputs, ids, shapes, position)
        for node, stored, id in zip(outputs, plan.stored, ids, strict=True):
            node.store(id, stored.form, stored.scale, self._dead.append)
            self.graph.pending.pop(node.number, None)
        for node in order:
            if node.op == "noise" and node.pending:
                node.op = "spent"  # made anew it would have other noise, and both tell more
        return revealed[0] if revealed else None

    def _free_of_charge(self, order):
        """The pending values in use that follow from `order` without another opening, such as the
        gradient of the labels; left pending, they would pile up from epoch to epoch."""
        known, free = set(order), []
        pending = self.graph.pending.values()
        candidates = [node for node in pending if node not in known and node.op in LOCAL]
        while found := [
            node
            for node in candidates
            if node not in known and all(not i.pending or i in known for i in node.inputs)
        ]:
            known.update(found)
            free += found
        return free

    def _still_referred_to(self, order):
        """The nodes of `order` that a tensor, or something that stays pending, refers to."""
        known = set(order)
        pending = [node for node in self.graph.pending.values() if node not in known]
        needed = {input_ for node in pending for input_ in node.inputs}
        return [node for node in order if node.handles or node in needed]

    def _plan(self, *computation):
        """The nodes of a computation, and its `Plan`: made, or the one that was made for another
        of the same looks."""
        nodes, looks = described(*computation)
        where = looks, self.exact
        if where not in self._plans:
            self._plans[where] = compiled(nodes, *computation, self.exact)
        self._plans.move_to_end(where)
        while len(self._plans) > self.MOST_PROGRAMS:
            self._plans.popitem(last=False)
        return nodes, self._plans[where]

    def _run(self, plan, inputs, outputs, shapes, position):
        """Have the parties run a plan, in as many attempts as it takes; what is revealed, arrays of
        these shapes."""
        if position is None and self.position is not None:
            self._next_run += AHEAD  # what was dealt ahead was for the plan's positions
        run, name = self._next_run, plan.name
        self._next_run += 1
        dead, forget = sorted(self._dead), self._to_forget[:]
        if name not in self._known and name not in self._to_forget:
            self._to_forget.append(name)  # should this fail, some may know it
        for attempt in range(self.MOST_ATTEMPTS):
            message = pack(
                *("run",),
                run=run,
                attempt=attempt,
                program=name,
                key=None if name in self._known else plan.key,
                inputs=inputs,
                outputs=outputs,
                counts=self._counts,
                delete=dead,
                forget=forget,
                position=position,
                to=self._reader,
            )
            self.network.counters.anew += attempt > 0
            # one value within its promise moves what the provider sees by this at the most
            widest = max((zone for _, zone in plan.zones), default=-math.inf)
            self.network.counters.told += 2.0 ** (widest - 63)
            if (revealed := self._attempt(message, run, attempt, shapes)) is not None:
                break
            if position is not None:  # what was dealt ahead is void, and its addresses are
                run += AHEAD
                self._next_run = run + 1
        else:
            raise RuntimeError(f"run {run} was made anew {attempt} times: this is no chance")
        self.network.counters.runs += 1
        del self._dead[: len(dead)]
        self._to_forget = [other for other in self._to_forget if other not in (*forget, name)]
        self._counts = [(run, attempt)]
        self._know(name)
        return revealed

    def _attempt(self, message, run, attempt, shapes):
        """What an attempt at a run reveals, or None if it was broken off."""
        started = time.perf_counter()
        self._send([(self.roster.provider, message)])
        dealt = time.perf_counter()
        verbs = ("result", "anew") if self._reader is None else ("result", "anew", "read")
        replies = self._ask_workers(message, verbs, run=run, attempt=attempt)
        self.network.counters.seconds["dealing"] += dealt - started
        self.network.counters.seconds["online"] += time.perf_counter() - dealt
        if any(verb == "anew" for verb, _ in replies):
            return None
        if self._reader is not None:
            return []
        shares = [wire.split(words(fields["revealed"]), shapes) for _, fields in replies]
        return [sum(parts) for parts in zip(*shares, strict=True)]

    def _know(self, name):
        """All ends know this program now; they are to forget what has not been used for long."""
        self._known[name] = None
        self._known.move_to_end(name)
        while len(self._known) > self.MOST_PROGRAMS:
            self._to_forget.append(self._known.popitem(last=False)[0])
