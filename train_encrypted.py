"""Encrypted training on MNIST: PySyft's tutorial "Part 12 bis" in one script.

    python train_encrypted.py                       # the tutorial: 10 epochs on 640 items
    python train_encrypted.py --epochs 1 --n-train-items 64 --n-test-items 64
    python train_encrypted.py --plain-twin          # beside the same network trained in the clear
    python train_encrypted.py --help

Workers, `worker1` and `worker2` by default, hold additive secret shares of the images, the labels
and the weights of a 784-128-64-10 network; a third party, `crypto_provider`, supplies randomness.
The network is trained with SGD on the MSE loss, in fixed precision on integers mod 2^64. Only the
loss of each batch and the number of correct answers of each test are ever revealed, and the trained
weights to their owner if --save-model asks for them.

After the tutorial by Théo Ryffel, OpenMined (Apache-2.0).
"""

import copy
import time

from smpc import compat, process

if __name__ == "__main__":
    process.prepare()  # for Ctrl-C while importing
try:
    compat.prepare()  # PySyft 0.2.9 on today's torch
except compat.UnsupportedVersion as unsupported:
    process.fail(unsupported)

import syft as sy
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torchvision import datasets, transforms

from smpc import mnist, outputs, report
from smpc import syft_binding as semi2k
from smpc.arguments import (
    HELD_ITEMS,
    PRECISIONS,
    Parser,
    add_hosts,
    add_privacy,
    check,
    path,
    positive,
)
from smpc.audit.transcript import Recorder
from smpc.checkpoint import Checkpoint, CheckpointError
from smpc.model import save_model
from smpc.semi2k.network import NetworkError

# ---- 1. Arguments: the tutorial's, each an option with the tutorial's value as its default -------

# F.relu is looked up at the call: the hook replaces it
ACTIVATIONS = {"relu": lambda x: F.relu(x), "quadratic": lambda x: x * x}


def parse_arguments(argv=None):
    parser = Parser(__doc__.split("\n")[0])
    add, count = parser.add_argument, positive(int)
    add("--epochs", type=count, default=10, help="passes over the training items")
    # We don't use the whole dataset for efficiency purpose, but feel free to increase these numbers
    add("--n-train-items", type=count, default=640, help="training items, of MNIST's 60,000")
    add("--n-test-items", type=count, default=640, help="test items, of MNIST's 10,000")
    add("--batch-size", type=count, default=64, help="training items a step")
    add("--test-batch-size", type=count, default=64, help="test items a batch")
    add(
        "--lr",
        type=positive(float),
        default=[0.02],
        nargs="+",
        help="of each epoch; the last stays",
    )
    add("--seed", type=int, default=1, help="seed of the initial weights")
    add("--log-interval", type=count, default=1, help="reveal the loss of every so many batches")
    add("--precision-fractional", type=int, default=3, help="decimal digits of fixed precision")
    add("--protocol", choices=list(PRECISIONS), default="semi2k", help="see README.md")
    add("--n-workers", type=int, default=2, help="that hold shares: 2 to 5 under semi2k")
    add("--exact-truncation", action="store_true", help="semi2k: make no run anew; see docs/")
    add("--activation", choices=list(ACTIVATIONS), default="relu", help="of the hidden layers")
    add("--data-dir", type=path, default="./data", help="folder that holds MNIST/raw/")
    add("--out", type=path, default="results", help="folder for run.json and accuracy.png")
    add("--transcript", type=path, metavar="FILE", help="record what each party sees, for audit")
    add("--checkpoint", type=path, metavar="DIR", help="keeps each party's shares of the weights")
    add("--checkpoint-every", type=count, default=100, help="batches, and at the end of an epoch")
    add("--resume", action="store_true", help="go on from the checkpoint")
    add("--save-model", type=path, metavar="FILE", help="reveal the trained weights to their owner")
    add("--plain-twin", action="store_true", help="train the same network in the clear beside it")
    add_privacy(parser)
    add_hosts(parser)
    return check(parser, parser.parse_args(argv))


# ---- 2. The parties, simulated in this process ---------------------------------------------------


def connect_to_workers(hook, n_workers):
    return [sy.VirtualWorker(hook, id=f"worker{i + 1}") for i in range(n_workers)]


def connect_to_crypto_provider(hook):
    return sy.VirtualWorker(hook, id="crypto_provider")


def on_hosts(args):
    """The parties where each is on a host of its own, and the data at its owners."""
    from smpc.hosts.script import OnHosts  # here, since only this needs gRPC

    return OnHosts(args)


def with_privacy(args, model):
    """What makes the training differentially private."""
    from smpc.privacy.script import Private  # here, since its accounting takes seconds to import

    return Private(args, model, get_data_loader)


# ---- 3. Secret-shared data -----------------------------------------------------------------------


def get_data_loader(args, train):
    """MNIST as the tutorial reads it: batches of float images (B, 1, 28, 28) and labels (B)."""
    transformation = transforms.Compose(
        # ToTensor() of a whole batch at once
        [transforms.ConvertImageDtype(torch.float), transforms.Normalize((0.1307,), (0.3081,))]
    )
    n_items = args.n_train_items if train else args.n_test_items
    dataset = mnist.AtOnce(datasets.MNIST(args.data_dir, train=train), n_items, transformation)
    batch_size = args.batch_size if train else args.test_batch_size
    return torch.utils.data.DataLoader(dataset, batch_size=batch_size)


def one_hot_of(index_tensor):
    """Labels (B) to one-hot rows (B, 10): [0, 3] => [[1, 0, 0, 0, ...], [0, 0, 0, 1, ...]]."""
    onehot_tensor = torch.zeros(*index_tensor.shape, 10)  # 10 classes for MNIST
    return onehot_tensor.scatter(1, index_tensor.view(-1, 1), 1)


class PrivateLoader:
    """Batches (data, target), each secret-shared when it is asked for, in every epoch anew."""

    def __init__(self, loader, share_data, share_target):
        self.loader, self.share_data, self.share_target = loader, share_data, share_target

    def __iter__(self):
        for data, target in self.loader:
            yield self.share_data(data), self.share_target(target)


def secret_share(tensor, args, workers, crypto_provider):
    """Transform to fixed precision and secret share a tensor."""
    if args.protocol == "semi2k":
        # The tutorial's masks come from torch's generator, before the weights do. These come from
        # the operating system; draw as many numbers, for nothing, to get its weights.
        torch.empty(tensor.shape, dtype=torch.int64).random_(-(2**63), 2**63 - 1)
    return tensor.fix_precision(precision_fractional=args.precision_fractional).share(
        *workers, crypto_provider=crypto_provider, protocol=args.protocol, requires_grad=True
    )


def get_private_data_loaders(args, workers, crypto_provider):
    """The data owners' part: batches of inputs and labels, secret-shared between the workers.

    Few items are shared once, here, and stay shared; of many, a batch is shared when it is needed.

    Returns:
        two iterables of (data, target): for training (B, 1, 28, 28) and one-hot (B, 10), for
        testing (B, 1, 28, 28) and labels (B). All are shares; nobody else sees the items.
    """

    def share(tensor):
        return secret_share(tensor, args, workers, crypto_provider)

    def private(loader, share_target):
        private_loader = PrivateLoader(loader, share, share_target)
        return list(private_loader) if len(loader.dataset) <= HELD_ITEMS else private_loader

    return (
        private(get_data_loader(args, train=True), lambda target: share(one_hot_of(target))),
        private(get_data_loader(args, train=False), lambda target: share(target.float())),
    )


# ---- 4. The model --------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.activation = activation
        self.fc1 = nn.Linear(28 * 28, 128)
        self.fc2 = nn.Linear(128, 64)
        self.fc3 = nn.Linear(64, 10)

    def forward(self, x):
        x = x.view(-1, 28 * 28)  # (B, 784)
        x = self.activation(self.fc1(x))  # (B, 128)
        x = self.activation(self.fc2(x))  # (B, 64)
        x = self.fc3(x)  # (B, 10)
        return x


# ---- 5. Training and testing ---------------------------------------------------------------------


def train(args, model, private_train_loader, optimizer, epoch, run, checkpoint):
    model.train()
    done, n_items = 0, args.n_train_items
    for batch_idx, (data, target) in enumerate(private_train_loader):  # <-- a private dataset now
        if run.has_trained(epoch, batch_idx):  # before it was broken off
            done += len(target)
            continue
        start_time = time.time()

        optimizer.zero_grad()

        output = model(data)

        # loss = F.nll_loss(output, target)  <-- not possible here
        batch_size = output.shape[0]
        loss = ((output - target) ** 2).sum().refresh() / batch_size

        loss.backward()

        optimizer.step()

        revealed = None
        if batch_idx % args.log_interval == 0 and not args.private:  # a loss tells of the data
            revealed = loss.get().float_precision().item()
            run.say(
                "Train Epoch: {} [{}/{} ({:.0f}%)]\tLoss: {:.6f}\tTime: {:.3f}s".format(
                    epoch, done, n_items, 100.0 * done / n_items, revealed, time.time() - start_time
                )
            )
            # a loss that wrapped around the ring is anywhere in it; a true one is near 1
            if not -1 < revealed < 2**52 / 10 ** (2 * args.precision_fractional):
                raise OverflowError(f"a loss of {revealed:g}: training diverged, lower --lr")
        run.trained(epoch, batch_idx, batch_size, revealed, time.time() - start_time)
        checkpoint.after_step(model, run)
        done += batch_size


def test(args, model, private_test_loader, epoch, run):
    model.eval()
    start_time = time.time()
    correct = 0
    with torch.no_grad():
        for data, target in private_test_loader:
            output = model(data)
            pred = output.argmax(dim=1)
            correct += pred.eq(target.view_as(pred)).sum()
            run.tested_batch(len(target))

    correct = correct.get().float_precision().item()
    n_items = args.n_test_items
    run.say(
        "\nTest set: Accuracy: {}/{} ({:.0f}%)\n".format(
            correct, n_items, 100.0 * correct / n_items
        )
    )
    if not 0 <= correct <= n_items:
        raise OverflowError(f"{correct:g} correct answers of {n_items}: values left the ring")
    run.tested(epoch, correct, n_items, time.time() - start_time)


def reveal_weights(model):
    """What the model's owner gets, who asks both workers for their shares: a plain state_dict."""
    return {
        name: parameter.copy().get().float_precision().detach()
        for name, parameter in model.named_parameters()
    }


def save_weights(args, model, run):
    """Reveal the weights to the model's owner, and save them, if they are asked for."""
    if args.save_model:
        save_model(reveal_weights(model), args.save_model)
        run.say(f"the weights were revealed to the model's owner: {args.save_model}\n")


def learning_rate(args, epoch):
    """That of an epoch, the first being 1."""
    return args.lr[min(epoch, len(args.lr)) - 1]


def set_learning_rate(args, optimizer, epoch):
    """Give the optimizer that of an epoch, in fixed precision."""
    optimizer.param_groups[0]["lr"] = learning_rate(args, epoch)
    optimizer.fix_precision(precision_fractional=args.precision_fractional)


def train_and_test(args, model, private_loaders, optimizer, run, checkpoint):
    """All epochs, or those that are left of a run that was broken off."""
    private_train_loader, private_test_loader = private_loaders
    checkpoint.begin(model, run)
    try:
        for epoch in range(len(run.tests) + 1, args.epochs + 1):
            set_learning_rate(args, optimizer, epoch)
            train(args, model, private_train_loader, optimizer, epoch, run, checkpoint)
            test(args, model, private_test_loader, epoch, run)
            checkpoint.save(model, run)
    except KeyboardInterrupt:
        checkpoint.break_off(model, run)
        raise


# ---- 6. Running it, and the tutorial's discussion as a report ------------------------------------


def train_plain_twin(args, model, run):
    """The same network from the same weights on the same batches, in the clear, in float32; for one
    epoch, to have its seconds, unless its results are asked for.

    Returns:
        every loss, the correct answers after each epoch, and the seconds of each step.
    """
    optimizer = optim.SGD(model.parameters(), lr=args.lr[0])
    train_loader, test_loader = (list(get_data_loader(args, train)) for train in (True, False))
    losses, correct, seconds = [], [], []
    for epoch in range(1, args.epochs + 1 if args.plain_twin else 2):
        optimizer.param_groups[0]["lr"] = learning_rate(args, epoch)
        for data, target in train_loader:
            run.stop_if_interrupted()
            start_time = time.time()
            optimizer.zero_grad()
            loss = ((model(data) - one_hot_of(target)) ** 2).sum() / len(data)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            seconds.append(time.time() - start_time)
        with torch.no_grad():
            correct.append(
                sum((model(data).argmax(dim=1) == t).sum().item() for data, t in test_loader)
            )
    return losses, correct, seconds


@process.in_order("train_encrypted.py")
def main():
    args = parse_arguments()
    hosts = on_hosts(args) if args.parties else None
    try:
        if hosts is None:
            mnist.prepare(args.data_dir)
    except mnist.DataError as error:
        process.fail(error)
    checkpoint = Checkpoint(args)
    recorder = Recorder(args.transcript, vars(args))  # does nothing without --transcript
    out = outputs.check(args)

    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # the stock protocols fork a process for every core, at every product
    hook = sy.TorchHook(torch)  # hook PyTorch to add encrypted learning
    semi2k.install()  # make protocol="semi2k" known to syft
    recorder.start()

    if hosts is None:
        workers = connect_to_workers(hook, n_workers=args.n_workers)
        crypto_provider = connect_to_crypto_provider(hook)
        private_loaders = get_private_data_loaders(args, workers, crypto_provider)
    else:
        workers, crypto_provider = hosts.connect(hook)
        private_loaders = hosts.loaders()

    model = Net(ACTIVATIONS[args.activation])
    private = with_privacy(args, model) if args.private else None
    twin = copy.deepcopy(model)
    model = model.fix_precision(precision_fractional=args.precision_fractional).share(
        *workers, crypto_provider=crypto_provider, protocol=args.protocol, requires_grad=True
    )
    recorder.inputs_are_shared()
    if args.exact_truncation:
        semi2k.truncate_exactly(next(model.parameters()))

    optimizer = optim.SGD(model.parameters(), lr=args.lr[0])
    if private:
        optimizer = private.optimizer(model)
    optimizer = optimizer.fix_precision(precision_fractional=args.precision_fractional)

    n_items = args.epochs * (args.n_train_items + args.n_test_items)
    run = report.Run(vars(args), n_items, semi2k.counters)
    process.on_signals(run.interrupt)
    if private:
        private.begin(run)
    try:
        train_and_test(args, model, private_loaders, optimizer, run, checkpoint)
        outputs.save(
            args, lambda: run.save(out), lambda: save_weights(args, model, run), recorder.save
        )
        if hosts is None:
            train_twin = private.train_plain_twin if private else train_plain_twin
            losses, correct, run.plain_steps = train_twin(args, twin, run)
            if args.plain_twin:
                run.twin = {"losses": losses, "correct": correct}
            outputs.save(args, lambda: run.save(out))
        else:
            hosts.finish(model)

        run.say(f"model.fc3.bias is {model.fc3.bias}")
        run.say(f"\nthe first batch's data is {next(iter(private_loaders[0]))[0]}")
        run.say(f"\n{run.summary()}\n\nwritten: {out}/run.json and {out}/accuracy.png")
        run.stop_if_interrupted()
    except (KeyboardInterrupt, CheckpointError, NetworkError) as reason:
        run.end(out, reason)
    except OverflowError as error:
        process.fail(error)


if __name__ == "__main__":
    main()
