"""`resample`, of the training itself: train_encrypted.py's own network, step and test.

Under two secrets, in which the images, the labels and the initial weights differ, the script trains
on two batches and tests on one, and has two losses and a count revealed. These differ, and are the
training's public results: the orchestrator's shares of them are not compared.
"""

from typing import NamedTuple
from unittest import mock

import numpy as np
import syft
import torch

import train_encrypted as script
from smpc import syft_binding
from smpc.audit import resample
from smpc.checkpoint import Checkpoint

BATCH = 16
ARGUMENTS = ("--n-train-items", 2 * BATCH, "--batch-size", BATCH, "--epochs", 1)
ARGUMENTS += ("--n-test-items", BATCH, "--test-batch-size", BATCH)
QUICK = resample.CASES[1:2]  # the last worker of two: it is dealt corrections, too


class Secret(NamedTuple):
    """What the owners of data and model share.

    Attributes:
        train, test: a TensorDataset of images, float32 (n, 1, 28, 28), and labels, int64 (n,).
        weights: a state_dict of the script's `Net`.
    """

    train: torch.utils.data.TensorDataset
    test: torch.utils.data.TensorDataset
    weights: dict

    def loader(self, args, train):
        """In the place of the script's `get_data_loader`."""
        dataset = self.train if train else self.test
        return torch.utils.data.DataLoader(dataset, batch_size=BATCH)


class Silent:
    """In the place of the `report.Run` that a training tells of itself: it prints nothing.

    Attributes:
        done: items of the epoch that have been trained on: it does not count.
        tests: the correct answers of each test so far.
    """

    def __init__(self):
        self.done, self.tests = 0, []

    def batches(self, epoch, loader):
        """All are to be trained on."""
        return enumerate(loader)

    def test_batches(self, loader):
        """All of them."""
        return iter(loader)

    def say(self, line):
        """Print nothing."""

    def trained(self, epoch, batch, items, loss, start_time):
        """Note nothing."""

    def tested(self, epoch, correct, items, start_time):
        """Note a test: an epoch is over."""
        self.tests.append(correct)


def draw(rng):
    """Two secrets that have nothing in common but shapes; `rng`: a generator of numpy's."""
    return [_secret(int(seed)) for seed in rng.integers(2**63, size=2)]


def _secret(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Secret(_items(2 * BATCH), _items(BATCH), script.Net(None).state_dict())


def _items(n):
    """Of as many pixels as in MNIST are not black, normalized as there."""
    images = torch.rand(n, 1, 28, 28) * (torch.rand(n, 1, 28, 28) < 0.2)
    labels = torch.randint(10, (n,))
    return torch.utils.data.TensorDataset((images - 0.1307) / 0.3081, labels)


def record(path, workers, held, secret):
    """Record the training; see `resample.record_until_carried_through`.

    Args:
        path, workers, held: as `resample.record` has them; `secret`: a `Secret`.
    """
    resample.hook()
    syft_binding.install()
    resample.record_until_carried_through(
        path, lambda recorder: _train(workers, held, secret, recorder)
    )


def _train(workers, held, secret, recorder):
    """What the script does, on this secret; how many attempts were broken off."""
    arguments = (*ARGUMENTS, "--n-workers", len(workers))
    args = script.parse_arguments([*map(str, arguments)])
    sessions = syft.local_worker.crypto_store.semi2k
    with mock.patch.dict(sessions, clear=True), resample.holding(workers, held):
        parties = script.connect_to_workers(syft.hook, args.n_workers)
        provider = script.connect_to_crypto_provider(syft.hook)
        with mock.patch.object(script, "get_data_loader", secret.loader):
            loaders = script.get_private_data_loaders(args, parties, provider)
        model = script.Net(script.ACTIVATIONS[args.activation])
        model.load_state_dict(secret.weights)
        model = model.fix_precision(precision_fractional=args.precision_fractional).share(
            *parties, crypto_provider=provider, protocol=args.protocol, requires_grad=True
        )
        recorder.inputs_are_shared()
        optimizer = torch.optim.SGD(model.parameters(), lr=args.lr[0])
        optimizer = optimizer.fix_precision(precision_fractional=args.precision_fractional)
        script.train_and_test(args, model, loaders, optimizer, Silent(), Checkpoint(args))
        return syft_binding.counters().anew


def resampled(folder, tests, quick=False):
    """Put the training under two secrets to the tests: in all `resample.CASES`, or in the one that
    sees most."""
    random = np.random.default_rng()
    for workers, held in QUICK if quick else resample.CASES:
        recorded = resample.record_both(folder, held, draw(random), workers, record)
        resample.tell_apart("a training", *recorded, held, tests)
