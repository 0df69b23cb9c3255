"""Private loaders of a script whose data is at its owners: batches of what it has the number of."""

from smpc.hosts.configuration import ConfigurationError, owner_of
from smpc.hosts.parts import PREDICT, SHAPES
from smpc.semi2k.provider import AHEAD
from smpc.syft_binding import shared_tensor


class Items:
    """The items of a set that all owners have together, in the order of the parties file.

    Args:
        configuration: a `configuration.Configuration`.
        which: "train" or "test", which workers have, or "predict", which clients have.
        n_items: how many are wanted, the first ones; `batch_size`: of each but an owner's last.
        n_alone: so many of each owner are a batch by themselves, before its others.
        shapes: of what owners share; see `parts.SHAPES`.
    Attributes:
        batches: (end of an owner, start, stop) of each.
    Raises:
        ConfigurationError: there are fewer.
    """

    def __init__(self, configuration, which, n_items, batch_size, n_alone=0, shapes=SHAPES):
        self.which, self.batches, self._shapes = which, [], shapes[which]
        left, kind = n_items, "train" if which == "train" else "test"
        for name in configuration.clients if which == PREDICT else configuration.workers:
            mine = min(left, getattr(configuration.parties[name], f"{kind}_items"))
            alone = range(min(n_alone, mine))
            for start in (*alone, *range(len(alone), mine, batch_size)):
                stop = min(start + (1 if start in alone else batch_size), mine)
                self.batches.append((owner_of(name), start, stop))
            left -= mine
        if left:
            raise ConfigurationError(
                f"--n-{kind}-items {n_items}: the owners in the parties file have {n_items - left}"
            )

    def ask(self, batch, session, digits):
        """Have the owner of a batch share it, with so many decimal digits: the nodes."""
        owner, start, stop = batch
        shapes = [(stop - start, *item) for item in self._shapes.values()]
        where = {"which": self.which, "start": start, "stop": stop}
        return session.ask_to_share(owner, shapes, **where, digits=digits)


class OwnersLoader:
    """Batches (data, target), each shared by its owner.

    Args:
        items: an `Items`; `parties`: the `semi2k.tensor.Parties`.
        digits: of fixed precision.
        held: whether what is shared once stays shared; else it is in every epoch anew, some
            batches before it is needed.
    """

    def __init__(self, items, parties, digits, held):
        self.items, self.parties, self.digits = items, parties, digits
        self._held = list(map(self._ask, items.batches)) if held else None

    def _ask(self, batch):
        return self.items.ask(batch, self.parties.session, self.digits)

    def __iter__(self):
        """Every batch as new tensors, so that no gradient of an earlier epoch is added to."""
        asked, ahead = [], iter(self.items.batches)
        for k in range(len(self.items.batches)):
            if self._held is None:
                while len(asked) < 1 + AHEAD and (batch := next(ahead, None)):
                    asked.append(self._ask(batch))
                nodes = asked.pop(0)
            else:
                nodes = self._held[k]
            yield tuple(shared_tensor(node, self.parties, self.digits) for node in nodes)
            del nodes
