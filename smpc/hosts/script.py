"""What the script needs when the parties are on hosts of their own: the same lines, other parties.

With `--write-plan` no host is called: the script runs through, and what it asks for is the plan.
"""

import math
import pathlib
import secrets
import tempfile

import syft
import torch

from smpc import process
from smpc.arguments import HELD_ITEMS
from smpc.hosts import certificates, channels, configuration, plans
from smpc.hosts.calls import Calls
from smpc.hosts.configuration import owner_of
from smpc.hosts.owners import SHAPES, Items, OwnersLoader
from smpc.hosts.planning import Planning, plan_of
from smpc.semi2k.owner import Owner
from smpc.semi2k.session import Session
from smpc.semi2k.tensor import Parties
from smpc.syft_binding import load_shares


class OnHosts:
    """The parties of a script, on hosts of their own, or as a plan is made for them.

    Args:
        args: of the script.
    Raises:
        ConfigurationError, PlanError, CertificateError: they cannot be called like this.
    """

    def __init__(self, args):
        self.args, self.configuration = args, configuration.read(args.parties)
        self.plan = args.plan and plans.read(args.plan)
        if self.plan:
            self.plan.check_parties(self.configuration)
        me = self.configuration.named(self.configuration.server)
        home = pathlib.Path(args.home or pathlib.Path(args.parties).parent / me.name)
        digest = self.plan.digest if self.plan else channels.ANY
        self._about, self._drawn = {"plan": digest}, 0
        self.parties = self._network = None
        args.n_workers = len(self.configuration.workers)
        if args.write_plan:
            self._nowhere = tempfile.TemporaryDirectory()  # for what is not computed
            args.out = args.checkpoint = self._nowhere.name
            args.save_model = args.save_model and f"{self._nowhere.name}/model"
        else:
            self._identity = certificates.load(home, me)
            args.checkpoint = args.checkpoint or str(home / "checkpoint" / digest[:16])

    def connect(self, hook):
        """Open a session: syft's stand-ins for the workers, and for the crypto provider.

        Raises:
            NetworkError: a party cannot be reached, refuses or is taken.
        """
        roster = self.configuration.roster()
        if self.args.write_plan:
            self._network = Planning(roster, SHAPES)
        else:
            about = {**self._about, "session": secrets.token_hex(16)}
            limit = self.args.time_limit
            self._network = Calls(self.configuration, *self._identity, about, limit)
        owner = owner_of(roster.orchestrator)
        self._network.ends[owner] = Owner(owner, roster)
        session = Session(roster, self._network)
        session.position = 0 if self.plan or self.args.write_plan else None
        session.exact = self.args.exact_truncation
        *workers, provider = (
            syft.VirtualWorker(hook, id=name) for name in (*roster.workers, roster.provider)
        )
        self.parties = Parties(tuple(workers), provider, session)
        key = (*roster.workers, roster.provider)
        syft.local_worker.crypto_store.semi2k[key] = self.parties
        return workers, provider

    def loaders(self):
        """Private loaders of the owners' items, for training and for testing."""
        args = self.args
        return [
            self._loader("train", args.n_train_items, args.batch_size),
            self._loader("test", args.n_test_items, args.test_batch_size),
        ]

    def _loader(self, which, n_items, batch_size):
        items = Items(self.configuration, which, n_items, batch_size)
        held = n_items <= HELD_ITEMS
        loader = OwnersLoader(items, self.parties, self.args.precision_fractional, held)
        if held:  # draw what the script draws for its loaders and masks, to have its weights
            n = 1 + n_items * sum(math.prod(item) for item in SHAPES[which].values())
            torch.empty(n, dtype=torch.int64).random_(-(2**63), 2**63 - 1)
            self._drawn += n
        return loader

    def finish(self, model):
        """End the session in order; or write the plan of all that `model` was trained by."""
        if not self.args.write_plan:
            self._network.end()
            return
        load_shares(list(model.parameters()), None, "plan", 0)
        layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
        weights = {
            "seed": self.args.seed,
            "drawn": self._drawn,
            "linear": [[layer.in_features, layer.out_features] for layer in layers],
            "digits": self.args.precision_fractional,
        }
        arguments = {name: getattr(self.args, name) for name in plans.ARGUMENTS}
        arguments["save_model"] = bool(self.args.save_model)
        plan = plan_of(self._network, self.configuration, arguments, weights)
        plan.check_weights()
        plan.save(pathlib.Path(self.args.write_plan))
        with process.to_stdout():
            print(f"written: {self.args.write_plan}; python -m smpc.hosts show tells what is in it")
