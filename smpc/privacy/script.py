"""`--private` of train_encrypted.py: the guarantee, the optimiser that keeps it, and its budget."""

import math
import time
from itertools import pairwise

import torch

from smpc.files import FileError
from smpc.privacy import accounting, twin
from smpc.privacy.budget import Budget
from smpc.privacy.clipping import Bounds
from smpc.privacy.optimizer import PrivateSGD
from smpc.semi2k.compiler import LEAST_SIGMA
from smpc.twin import count_correct

BOUNDS = {"relu": Bounds(), "quadratic": Bounds(weights=16, powers=2)}


def guarantee_of(args, coordinates):
    """The `accounting.Guarantee` of a run with these arguments, of gradients of so many numbers.

    Raises:
        FileError: there is none.
    """
    about = args.private, args.delta, args.epochs, args.n_workers, args.clip
    try:
        return accounting.guarantee(*about, _steps(args), coordinates, LEAST_SIGMA)
    except ValueError as error:
        raise FileError(f"--private: {error}") from error


def _steps(args):
    """How many steps an epoch has; on hosts each owner has a last batch of its own."""
    if not args.parties:
        return math.ceil(args.n_train_items / args.batch_size)
    from smpc.hosts import configuration, owners  # here, since only this needs gRPC

    parties = configuration.read(args.parties)
    return len(owners.Items(parties, "train", args.n_train_items, args.batch_size).batches)


class Private:
    """What a run with --private needs.

    Args:
        args: of the script; `model`: its network, before it is shared.
    Attributes:
        guarantee: an `accounting.Guarantee`.
    Raises:
        FileError: there is no such guarantee, or no budget; see `Budget`.
    """

    def __init__(self, args, model):
        self._args = args
        # on hosts of their own each worker counts what it has run: see `hosts.plans.Consent`
        self._budget, self._over = None if args.parties else Budget(args), False
        coordinates = sum(parameter.numel() for parameter in model.parameters())
        self.guarantee = guarantee_of(args, coordinates)

    def begin(self, run):
        """Say what is guaranteed, and have the run ask for each step."""
        for line in self.guarantee.lines():
            run.say(line)
        run.allows = self._allows
        self._say = run.say

    def _allows(self, epoch, batch):
        """Whether a batch may be used. Once one may not, none may: what the noise's correlation is
        worth rests on how far apart the uses of a batch are."""
        if self._budget and not self._over and not self._budget.take(batch):
            self._over = True
            self._say(f"The budget is used up: training ends before batch {batch} of epoch {epoch}")
        return not self._over

    def train_plain_twin(self, args, model, get_data_loader, run):
        """As `smpc.twin.train_plain_twin`, with the same clipping, and noise of the same kind."""
        guarantee = self.guarantee
        train_loader, test_loader = (list(get_data_loader(args, train)) for train in (True, False))
        data, target = (torch.cat(parts) for parts in zip(*train_loader, strict=True))
        target = torch.nn.functional.one_hot(target, 10).float()
        epochs = args.epochs if args.plain_twin else 1
        schedule = twin.Schedule(epochs, args.batch_size, args.lr, args.momentum)
        bounds = BOUNDS[args.activation]
        mechanism = twin.Mechanism(args.clip, guarantee.sigma, bounds, guarantee.correlation)
        layers, losses, correct, seconds = twin.stacked([model]), [], [], [time.time()]
        steps = math.ceil(len(data) / args.batch_size)
        for step in twin.train_in_the_clear(
            layers, data.flatten(1), target, schedule, mechanism, activation=args.activation
        ):
            run.stop_if_interrupted()
            losses.append(step.losses.mean().item())
            seconds.append(time.time())
            if step.batch == steps - 1:
                twin.put_into(model, layers)
                correct.append(count_correct(model, test_loader))
        return losses, correct, [after - before for before, after in pairwise(seconds)]

    def optimizer(self, model):
        """SGD for the shared `model`."""
        args = self._args
        return PrivateSGD(
            model,
            clip=args.clip,
            sigma=self.guarantee.sigma,
            correlation=self.guarantee.correlation,
            n_workers=args.n_workers,
            bounds=BOUNDS[args.activation],
            lr=args.lr[0],
            momentum=args.momentum,
        )
