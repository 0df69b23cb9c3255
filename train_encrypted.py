"""Encrypted training on MNIST: PySyft's tutorial "Part 12 bis" in one script.

    python train_encrypted.py                       # the tutorial: 10 epochs on 640 items
    python train_encrypted.py --epochs 1 --n-train-items 64 --n-test-items 64
    python train_encrypted.py --plain-twin          # beside the same network trained in the clear

Two workers hold secret shares of the images, the labels and the weights of a 784-128-64-10 network;
a crypto provider supplies randomness. The network is trained with SGD on the MSE loss, in fixed
precision on integers mod 2^64. Only the loss of each batch and the number of correct answers of
each test are ever revealed, and the trained weights to their owner if --save-model asks for them.

After the tutorial by Théo Ryffel, OpenMined (Apache-2.0); tutorial.ipynb explains it cell by cell.
"""

import copy
import time

from smpc import process

if __name__ == "__main__":
    process.prepare()  # for Ctrl-C while importing
process.prepare_syft()  # 0.2.9 on today's torch

import syft as sy
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torchvision import datasets, transforms

from smpc import arguments, mnist, outputs, report
from smpc import syft_binding as semi2k  # puts the protocol, which is smpc/semi2k/, into syft
from smpc.audit.transcript import Recorder
from smpc.checkpoint import Checkpoint
from smpc.hosts import on_hosts
from smpc.loaders import draw_as_the_tutorial, private_loader
from smpc.model import save_weights
from smpc.privacy import with_privacy
from smpc.twin import train_plain_twin

# ---- 1. Configuration: the tutorial's, each an option; --help has them all -----------------------

ACTIVATIONS = {"relu": lambda x: F.relu(x), "quadratic": lambda x: x * x}  # as syft replaces it


class Arguments:
    epochs = 10
    # We don't use the whole dataset for efficiency purpose, but feel free to increase these numbers
    n_train_items = 640
    n_test_items = 640
    batch_size = 64
    test_batch_size = 64
    lr = 0.02
    seed = 1
    log_interval = 1  # Log info at each batch
    precision_fractional = 3


def parse_arguments(argv=None):
    return arguments.parse_training(argv, __doc__, Arguments, ACTIVATIONS)


# ---- The parties, simulated in this process unless they are on hosts of their own ----------------


def connect_to_workers(hook, n_workers):
    return [sy.VirtualWorker(hook, id=f"worker{i + 1}") for i in range(n_workers)]


def connect_to_crypto_provider(hook):
    return sy.VirtualWorker(hook, id="crypto_provider")


# ---- 2. Secret-shared data -----------------------------------------------------------------------


def get_data_loader(args, train):
    """MNIST as the tutorial reads it: batches of float images (B, 1, 28, 28) and labels (B)."""
    transformation = transforms.Compose(  # the first is ToTensor() of a whole batch at once
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


def secret_share(tensor, args, workers, crypto_provider):
    """Transform to fixed precision and secret share a tensor."""
    draw_as_the_tutorial(args, tensor.numel())  # so that the weights are the tutorial's
    return tensor.fix_precision(precision_fractional=args.precision_fractional).share(
        *workers, crypto_provider=crypto_provider, protocol=args.protocol, requires_grad=True
    )


def get_private_data_loaders(args, workers, crypto_provider):
    """The data owners' part: batches of images (B, 1, 28, 28) with one-hot labels (B, 10), for
    training, and with labels (B), for testing. All are shares; nobody else sees the items."""

    def share(tensor):
        return secret_share(tensor, args, workers, crypto_provider)

    return (
        private_loader(
            get_data_loader(args, True), share, lambda target: share(one_hot_of(target))
        ),
        private_loader(get_data_loader(args, False), share, lambda target: share(target.float())),
    )


# ---- 3. The model --------------------------------------------------------------------------------


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


# ---- 4. Training and testing ---------------------------------------------------------------------


def train(args, model, private_train_loader, optimizer, epoch, run):
    model.train()
    n, private_batches = args.n_train_items, run.batches(epoch, private_train_loader)
    for batch_idx, (data, target) in private_batches:  # <-- now it is a private dataset
        start_time = time.time()

        optimizer.zero_grad()

        output = model(data)

        # loss = F.nll_loss(output, target)  <-- not possible here
        batch_size = output.shape[0]
        loss = ((output - target) ** 2).sum().refresh() / batch_size

        loss.backward()

        optimizer.step()

        if batch_idx % args.log_interval == 0 and not args.private:  # a loss tells of the data
            loss = loss.get().float_precision()
            run.say(
                "Train Epoch: {} [{}/{} ({:.0%})]\tLoss: {:.6f}\tTime: {:.3f}s".format(
                    epoch, run.done, n, run.done / n, loss.item(), time.time() - start_time
                )
            )
        run.trained(epoch, batch_idx, batch_size, loss, start_time)


def test(args, model, private_test_loader, epoch, run):
    model.eval()
    start_time = time.time()
    correct = 0
    with torch.no_grad():
        for data, target in run.test_batches(private_test_loader):
            output = model(data)
            pred = output.argmax(dim=1)
            correct += pred.eq(target.view_as(pred)).sum()

    correct = correct.get().float_precision()
    n = args.n_test_items
    run.say("\nTest set: Accuracy: {}/{} ({:.0%})\n".format(correct.item(), n, correct.item() / n))
    run.tested(epoch, correct.item(), n, start_time)


def train_and_test(args, model, private_loaders, optimizer, run, checkpoint):
    """All epochs, or those that are left of a run that was broken off."""
    with checkpoint.kept(model, run):
        for epoch in range(len(run.tests) + 1, args.epochs + 1):
            optimizer.param_groups[0]["lr"] = arguments.learning_rate(args, epoch)
            optimizer.fix_precision(precision_fractional=args.precision_fractional)
            train(args, model, private_loaders[0], optimizer, epoch, run)
            test(args, model, private_loaders[1], epoch, run)


# ---- 5. The training, and 6. what the tutorial discusses, as a report ----------------------------


@process.in_order("train_encrypted.py")
def main():
    args = parse_arguments()
    hosts = on_hosts(args)  # None: all parties are in this process
    if hosts is None:
        mnist.prepare(args.data_dir)
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
    private, plain_model = with_privacy(args, model), copy.deepcopy(model)
    model = model.fix_precision(precision_fractional=args.precision_fractional).share(
        *workers, crypto_provider=crypto_provider, protocol=args.protocol, requires_grad=True
    )
    recorder.inputs_are_shared()
    if args.exact_truncation:
        semi2k.truncate_exactly(next(model.parameters()))

    optimizer = private.optimizer(model) if private else optim.SGD(model.parameters(), args.lr[0])
    optimizer = optimizer.fix_precision(precision_fractional=args.precision_fractional)

    run = report.Run(vars(args), semi2k.counters)
    with run.ending(out):
        if private:
            private.begin(run)
        train_and_test(args, model, private_loaders, optimizer, run, checkpoint)
        saves = (lambda: run.save(out)), (lambda: save_weights(args, model, run)), recorder.save
        outputs.save(args, *saves)
        if hosts is None:
            train_twin = private.train_plain_twin if private else train_plain_twin
            run.compare(*train_twin(args, plain_model, get_data_loader, run))
            outputs.save(args, lambda: run.save(out))
        else:
            hosts.finish(model)
        run.say(f"model.fc3.bias is {model.fc3.bias}")
        run.say(f"\nthe first batch's data is {next(iter(private_loaders[0]))[0]}")


if __name__ == "__main__":
    main()
