"""What a script needs when the parties are on hosts of their own: the same lines, other parties.

With `--write-plan` no host is called: the script runs through, and what it asks for is the plan.
"""

import math
import pathlib
import secrets
import tempfile
from fractions import Fraction

import syft
import torch

from smpc import outputs, process
from smpc.arguments import HELD_ITEMS
from smpc.files import named
from smpc.hosts import certificates, channels, configuration, plans
from smpc.hosts.calls import Calls
from smpc.hosts.configuration import ConfigurationError, host_of, owner_of
from smpc.hosts.grammar import PREDICTION, TRAINING
from smpc.hosts.owners import Items, OwnersLoader
from smpc.hosts.parts import PREDICT, SHAPES
from smpc.hosts.planning import Planning, plan_of
from smpc.loaders import draw
from smpc.semi2k.owner import Owner, batch_label
from smpc.semi2k.session import Session
from smpc.semi2k.tensor import Parties, semi2k_tensor_in
from smpc.syft_binding import load_shares, shared_tensor

N_ALONE = 5  # images that are classified one at a time, for how long that takes


class Hosts:
    """The parties of a script, on hosts of their own, or as a plan is made for them.

    Args:
        args: of the script, `script`: its name, of `grammar.ARGUMENTS`.
        shapes: of what owners share; see `parts.SHAPES`.
    Attributes:
        clients: names of those that take part in the session.
    Raises:
        FileError: they cannot be called like this.
    """

    def __init__(self, args, script, shapes=SHAPES):
        self.args, self._script, self._shapes = args, script, shapes
        self.configuration, self.clients = configuration.read(args.parties), ()
        self.plan = args.plan and plans.read(args.plan)
        if self.plan:
            self.plan.check_parties(self.configuration)
        me = self.configuration.named(self.configuration.server)
        args.home = args.home or str(pathlib.Path(args.parties).parent / me.name)
        self.home = pathlib.Path(args.home)
        self.digest = self.plan.digest if self.plan else channels.ANY
        self.parties = self.network = None
        if args.write_plan:
            written = [("--write-plan", pathlib.Path(args.write_plan))]
            outputs.check_files(written, outputs.kept_on_hosts(args))
        else:
            self._identity = certificates.load(self.home, me)

    def connect(self, hook):
        """Open a session: syft's stand-ins for the workers, and for the crypto provider.

        Raises:
            NetworkError: a party cannot be reached, refuses or is taken.
        """
        present = self.configuration.with_clients(self.clients)
        roster = present.roster()
        if self.args.write_plan:
            self.network = Planning(roster, self._shapes)
        else:
            about = {"plan": self.digest, "session": secrets.token_hex(16)}
            self.network = Calls(present, *self._identity, about, self.args.time_limit)
        owner = owner_of(roster.orchestrator)
        self.network.ends[owner] = Owner(owner, roster)
        session = Session(roster, self.network)
        session.position = 0 if self.plan or self.args.write_plan else None
        *workers, provider = (
            syft.VirtualWorker(hook, id=name) for name in (*roster.workers, roster.provider)
        )
        self.parties = Parties(tuple(workers), provider, session)
        key = (*roster.workers, roster.provider)
        syft.local_worker.crypto_store.semi2k[key] = self.parties
        return workers, provider

    def write_plan(self, weights, guarantee=None, **arguments):
        """Write the plan of all that was asked for; see `planning.plan_of`.

        Args:
            arguments: beside those that every plan of the script is made with.
        """
        arguments |= {name: getattr(self.args, name) for name in plans.ARGUMENTS[self._script]}
        about = arguments, weights, guarantee
        plan = plan_of(self.network, self.configuration, self._script, *about)
        plan.check_weights()
        plan.check_privacy()
        with named(f"--write-plan {self.args.write_plan}"):
            plan.save(pathlib.Path(self.args.write_plan))
        with process.to_stdout():
            print(f"written: {self.args.write_plan}; python -m smpc.hosts show tells what is in it")


class OnHosts(Hosts):
    """The parties of a training.

    Args:
        args, script, shapes: as of `Hosts`. Where `args` has no numbers of items, it is trained and
            tested on all.
    """

    def __init__(self, args, script=TRAINING, shapes=SHAPES):
        super().__init__(args, script, shapes)
        self._drawn = 0
        if getattr(args, "resume", False) and getattr(args, "private", None):
            # (its programs after a checkpoint are not yet those of a run that goes on from there)
            raise ConfigurationError(
                "--resume: a private training that was broken off cannot go on: make a new plan"
            )
        owners = [self.configuration.parties[name] for name in self.configuration.workers]
        args.n_workers = len(owners)
        for kind in ("train_items", "test_items"):
            if not hasattr(args, f"n_{kind}"):
                setattr(args, f"n_{kind}", sum(getattr(owner, kind) for owner in owners))
        if args.write_plan:
            self._nowhere = tempfile.TemporaryDirectory()  # for what is not computed
            args.out = args.checkpoint = self._nowhere.name
            args.save_model = args.save_model and f"{self._nowhere.name}/model"
        elif hasattr(args, "checkpoint"):  # else the script keeps none
            args.checkpoint = args.checkpoint or str(self.home / "checkpoint" / self.digest[:16])

    def connect(self, hook):
        """As `Hosts.connect`."""
        parties = super().connect(hook)
        self.parties.session.exact = self.args.exact_truncation
        return parties

    def loaders(self):
        """Private loaders of the owners' items, for training and for testing."""
        args = self.args
        return [
            self._loader("train", args.n_train_items, args.batch_size),
            self._loader("test", args.n_test_items, args.test_batch_size),
        ]

    def _loader(self, which, n_items, batch_size):
        items = Items(self.configuration, which, n_items, batch_size, shapes=self._shapes)
        held = n_items <= HELD_ITEMS
        loader = OwnersLoader(items, self.parties, self.args.precision_fractional, held)
        if held and self._script == TRAINING:
            # draw what the script draws for its loaders and masks, to have its weights
            n = 1 + n_items * sum(math.prod(item) for item in self._shapes[which].values())
            draw(n)
            self._drawn += n
        return loader

    def finish(self, model):
        """End the session in order; or write the plan of all that `model` was trained by."""
        if not self.args.write_plan:
            self.network.end()
            return
        if self.network.saves:
            load_shares(list(model.parameters()), None, "plan", 0)
        layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
        weights = {
            "seed": self.args.seed,
            "drawn": self._drawn,
            "linear": [[layer.in_features, layer.out_features] for layer in layers],
            "digits": self.args.precision_fractional,
        }
        guarantee = self._guarantee(layers) if getattr(self.args, "private", None) else None
        self.write_plan(weights, guarantee, save_model=bool(self.args.save_model))

    def _guarantee(self, layers):
        """What a training of these layers guarantees, as a plan has it."""
        from smpc.privacy.script import guarantee_of  # here, since it takes seconds to import

        coordinates = sum((1 + layer.in_features) * layer.out_features for layer in layers)
        guarantee = guarantee_of(self.args, coordinates)._asdict()
        guarantee["correlation"] = list(guarantee["correlation"])
        return {**guarantee, "workers": self.args.n_workers}


class ForClients(Hosts):
    """The parties of a prediction: clients have images, the server has a model, and is told
    nothing of what it says of them."""

    def __init__(self, args):
        super().__init__(args, PREDICTION)
        clients = [self.configuration.parties[name] for name in self.configuration.clients]
        args.n_test_items = args.n_test_items or sum(client.test_items for client in clients)
        if not args.n_test_items:
            raise ConfigurationError(f"{args.parties}: no client in it has items to be classified")
        about = args.n_test_items, args.test_batch_size, N_ALONE
        self._items = Items(self.configuration, PREDICT, *about)
        self.clients = {host_of(owner) for owner, _, _ in self._items.batches}

    def owns(self, model):
        """Have the server share what comes next as the weights of `model`, masked."""
        session, digits = self.parties.session, self.args.precision_fractional
        session.owner = owner_of(self.configuration.server)
        session.labels = (
            batch_label(session.owner, "model", 0, 1, name, digits)
            for name, _ in model.named_parameters()
        )

    def batches(self):
        """The name of the client that has it, and an `Images`, for each batch."""
        for batch in self._items.batches:
            about = self.parties, self.args.precision_fractional
            yield host_of(batch[0]), Images(self._items, batch, *about)

    def finish(self):
        """End the session in order; or write the plan of it."""
        if self.args.write_plan:
            self.write_plan(None)
        else:
            self.network.end()


class Images:
    """A batch of a client's images.

    Args:
        items: the `Items` that `batch` is one of.
        parties: the `semi2k.tensor.Parties`; `digits`: of fixed precision.
    Attributes:
        n_items: how many.
    """

    def __init__(self, items, batch, parties, digits):
        self._items, self._batch, self._parties, self._digits = items, batch, parties, digits
        self._owner, start, stop = batch
        self.n_items = stop - start

    def share(self):
        """Have the client share them: a tensor (B, 1, 28, 28)."""
        (node,) = self._items.ask(self._batch, self._parties.session, self._digits)
        return shared_tensor(node, self._parties, self._digits)

    def reveal(self, tensor):
        """Have whole numbers, a tensor, revealed to the client alone; until it has read them."""
        session, digits = self._parties.session, semi2k_tensor_in(tensor).node
        whole = session.graph.scaled(digits, Fraction(1, 10**self._digits))
        session.reveal_to(whole, self._owner)
