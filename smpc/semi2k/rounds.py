"""Drives the parties: one message to each worker a round; counts rounds, messages and bytes.

The orchestrator's end. It holds the graph of what is to be computed and the ids of the shares, adds
up what the workers ask to have opened, which is masked, and receives what is revealed.
"""

import time
import weakref

import numpy as np
import syft

from smpc.semi2k import arithmetic
from smpc.semi2k.network import Network
from smpc.semi2k.parties import Provider, Worker, pack, raw, unpack, words
from smpc.semi2k.program import LOCAL, MOVES, Graph, Lowering, ancestors
from smpc.semi2k.randomness import Stream, new_key


def _is_local(node):
    """Whether the workers compute this node without speaking to each other."""
    if node.op == "scaled":
        return node.params[0].denominator == 1
    return node.op in LOCAL


class Session:
    """The orchestrator's side of two workers and a crypto provider.

    Attributes:
        workers: worker1 and worker2; `provider`: the crypto provider.
        graph: the `Graph` of what has been computed and is to be.
        network: the `Network` that carries and counts the messages.
    """

    # Pending nodes hold no memory at the workers, but running them all at once does: beyond this
    # many elements they are computed without waiting for a value to be revealed.
    MOST_PENDING = 1 << 23
    # What nobody asks for, such as the gradient of the images, mostly dies with its step. What is
    # left pending this often is computed, since it would hold on to more at every step.
    PATIENCE = 3

    def __init__(self, name, workers, provider):
        self.workers, self.provider = workers, provider
        self.graph = Graph()
        self._programs = {}
        self._serial = 0
        self._dead = []
        self._wanted = []
        self._pending = 0
        self._owner = Stream(new_key())  # the data owners' masks of inputs; no other party has it
        self.network = Network(name)
        for worker in workers:
            worker.crypto_store.semi2k[self.network.name] = Worker(worker)
        dealer = Provider(provider, workers, self.network)
        provider.crypto_store.semi2k[self.network.name] = dealer
        dealer.send_keys()

    @classmethod
    def between(cls, workers, provider):
        """The session of these parties, made on first use.

        Raises:
            ValueError: there are not two different workers, or no third party to deal.
        """
        if len({worker.id for worker in workers}) != 2 or len(workers) != 2:
            raise ValueError(f"semi2k shares between two workers, not {len(workers)}")
        if not isinstance(provider, syft.workers.abstract.AbstractWorker):
            raise ValueError(f"semi2k needs a crypto_provider, a worker; got {provider!r}")
        if provider.id in {worker.id for worker in workers}:
            raise ValueError(
                f"{provider.id} holds shares: the crypto_provider must be a third party"
            )
        if provider is syft.local_worker:
            raise ValueError("the crypto_provider must be a party of its own, not the orchestrator")
        sessions = syft.local_worker.crypto_store.semi2k
        name = f"{workers[0].id} {workers[1].id} {provider.id}"
        if name not in sessions:
            sessions[name] = cls(name, tuple(workers), provider)
        return sessions[name]

    # ---- sharing and forgetting

    def share(self, values):
        """A data owner's part: share a public-to-it int64 array; the node of the shared value."""
        secret = np.array(values, dtype=np.int64, order="C").view(np.uint64)
        first = self._owner.words(secret.size).reshape(secret.shape)
        id = syft.ID_PROVIDER.pop()
        for worker, share in zip(self.workers, arithmetic.share(secret, first), strict=True):
            message = pack(do="store", id=id, shape=secret.shape, share=raw([share]))
            self.network.request(syft.local_worker, worker, message, "sharing")
        return self.graph.stored(id, secret.shape, self._dead.append)

    def save(self, nodes, folder, about, keep):
        """Have each worker write its shares of `nodes` to folder/WORKER/; see `Worker.do_save`."""
        if pending := [node for node in nodes if node.pending]:
            self.compute(pending)
        fields = {"ids": [node.id for node in nodes], "about": about, "keep": keep}
        for worker in self.workers:
            message = pack(do="save", folder=f"{folder}/{worker.id}", **fields)
            self.network.request(syft.local_worker, worker, message, "checkpoint")

    def load(self, shapes, folder, about):
        """New nodes for the values, of these shapes, whose shares the workers find in their files.

        Raises:
            CheckpointError: see `Worker.do_load`.
        """
        ids = [syft.ID_PROVIDER.pop() for _ in shapes]
        fields = {"ids": ids, "about": about, "shapes": shapes}
        for worker in self.workers:
            message = pack(do="load", folder=f"{folder}/{worker.id}", **fields)
            self.network.request(syft.local_worker, worker, message, "checkpoint")
        return [
            self.graph.stored(id, shape, self._dead.append)
            for id, shape in zip(ids, shapes, strict=True)
        ]

    def _forgotten(self):
        dead = self._dead[:]
        del self._dead[: len(dead)]
        return dead

    # ---- computing

    def want(self, node):
        """Have `node` computed with whatever is revealed next: a parameter after its update."""
        if node.pending:
            self._wanted.append(weakref.ref(node))

    def note(self, node):
        """Called for each new node that a tensor refers to; computes when too much is pending."""
        self._pending += node.size if node.pending else 0
        if self._pending > self.MOST_PENDING:
            self.compute([node for node in self.graph.pending.values() if node.handles])
        return node

    def reveal(self, node):
        """The value of `node`: int64, of its shape. Both workers' shares of it come here."""
        if node.op == "constant":
            return np.full(node.shape, round(node.params[0]), dtype=np.int64)
        if node.op == "public":
            return node.params[0].view(np.int64).copy()
        return self.compute([], reveal=node).view(np.int64)

    def compute(self, wanted, reveal=None):
        """Compute what is wanted, a node to reveal, and what comes with them at no cost.

        Returns:
            the revealed value, a uint64 array, or None if there is nothing to reveal.
        """
        wanted = wanted + [node for ref in self._wanted if (node := ref()) and node.pending]
        wanted += [node for node in self.graph.pending.values() if node.waited >= self.PATIENCE]
        self._wanted, self._pending = [], 0
        order = ancestors(wanted if reveal is None else [reveal, *wanted])
        order += self._free_of_charge(order)
        keep = self._still_referred_to(order)
        lowering = Lowering(order, reveal, keep)
        ids = [syft.ID_PROVIDER.pop() for _ in keep]
        revealed = self._run(lowering, ids)
        for node, id in zip(keep, ids, strict=True):
            node.id, node.on_delete, node.inputs = id, self._dead.append, ()
            self.graph.pending.pop(node.number, None)
        for node in lowering.newly_masked:
            node.masked = True
        for node in self.graph.pending.values():
            node.waited += node.op not in MOVES
        return None if reveal is None else revealed.reshape(reveal.shape)

    def _free_of_charge(self, order):
        """The pending values in use that follow from `order` without another opening, such as the
        gradient of the labels; left pending, they would pile up from epoch to epoch."""
        known, free = set(order), []
        pending = self.graph.pending.values()
        candidates = [node for node in pending if node not in known and _is_local(node)]
        while found := [
            node
            for node in candidates
            if node not in known and all(not i.pending or i in known for i in node.inputs)
        ]:
            known.update(found)
            free += found
        return free

    def _still_referred_to(self, order):
        """The nodes of `order` to store: a tensor, or something that stays pending, needs them.

        What only moves elements about is not stored; it stays pending, and needs what it moves.
        """
        known = set(order)
        pending = [node for node in self.graph.pending.values() if node not in known]
        needed = {input_ for node in pending for input_ in node.inputs}
        keep = []
        for node in reversed(order):
            if node.handles or node in needed:
                if node.op in MOVES:
                    needed.update(node.inputs)
                else:
                    keep.append(node)
        return keep[::-1]

    def _run(self, lowering, outputs):
        """Have the parties run what `lowering` made and store shares under the ids `outputs`; the
        revealed words, flat."""
        started = time.perf_counter()
        number, new = self._programs.setdefault(lowering.key, (len(self._programs), True))
        self._programs[lowering.key] = (number, False)
        key = lowering.key if new else None
        self._serial += 1
        inputs = [node.id for node in lowering.inputs]
        dead = self._forgotten()
        common = {"serial": self._serial, "program": number, "key": key, "inputs": inputs}
        me = syft.local_worker
        self.network.request(me, self.provider, pack(**common, delete=dead), "dealing")
        dealt = time.perf_counter()
        constants = [(values.shape, raw([values])) for values in lowering.constants]
        message = pack(do="run", **common, outputs=outputs, constants=constants, delete=dead)
        revealed = [np.empty(0, np.uint64)]
        while message is not None:
            replies = [
                unpack(self.network.request(me, worker, message, "online"))
                for worker in self.workers
            ]
            message = self._open(*replies, revealed)
        self.network.counters.seconds["dealing"] += dealt - started
        self.network.counters.seconds["online"] += time.perf_counter() - dealt
        return np.concatenate(revealed)

    def _open(self, one, two, revealed):
        """Put the workers' answers together: the next message to both, or None at the end."""
        if one["finished"] != two["finished"]:
            raise RuntimeError("the workers are not in the same round")
        counters = self.network.counters
        if one["revealed"]:
            revealed.append(words(one["revealed"]) + words(two["revealed"]))
            counters.revealed += 2 * len(one["revealed"])
        if one["finished"]:
            return None
        counters.rounds += 1
        counters.opened += 2 * (len(one["words"]) + len(one["bits"]))
        opened = words(one["words"]) + words(two["words"])
        bits = words(one["bits"]) ^ words(two["bits"])
        return pack(do="open", words_=raw([opened]), bits=raw([bits]))
