"""A convolutional network on all of MNIST, under encryption: 99% of the test items.

    python -m examples.convnet
    python -m examples.convnet --epochs 1 --n-train-items 200 --n-test-items 200
    python -m examples.convnet --help

The tutorial's parties, private loaders and test; another network, cross-entropy for a loss, SGD
with momentum. Beside it the same network is trained in the clear on the same batches.
"""

import copy
import time

from smpc import process

if __name__ == "__main__":
    process.prepare()  # for Ctrl-C while importing

import train_encrypted as tutorial
from smpc import mnist, report
from smpc.arguments import (
    Parser,
    check_digits,
    check_items,
    check_seed,
    learning_rate,
    path,
    positive,
)
from smpc.files import prepare_folder
from smpc.loaders import PrivateLoader
from smpc.twin import count_correct
from train_encrypted import F, nn, optim, semi2k, sy, torch

PROGRAM = "examples.convnet"
BLACK = -0.1307 / 0.3081  # as the tutorial normalises it


def parse_arguments(argv=None):
    parser = Parser(__doc__.split("\n")[0], PROGRAM)
    add, count = parser.add_argument, positive(int)
    add("--epochs", type=count, default=6, help="passes over the training items")
    add("--n-train-items", type=count, default=60_000, help="training items, of MNIST's 60,000")
    add("--n-test-items", type=count, default=10_000, help="test items, of MNIST's 10,000")
    add("--batch-size", type=count, default=100, help="training items a step")
    add("--test-batch-size", type=count, default=200, help="test items a batch")
    rates = [0.015, 0.01, 0.008, 0.005, 0.002, 0.0005]
    add("--lr", type=positive(float), default=rates, nargs="+", help="of each epoch")
    add("--momentum", type=float, default=0.9, help="of Nesterov's kind")
    add("--seed", type=int, default=3, help="of the initial weights, and of how images are moved")
    add("--precision-fractional", type=int, default=4, help="decimal digits of fixed precision")
    add("--data-dir", type=path, default="./data", help="folder that holds MNIST/raw/")
    add("--out", type=path, default="results/convnet", help="for run.json and accuracy.png")
    args = parser.parse_args(argv)
    check_items(parser, "train", args.n_train_items, mnist.N_TRAIN, args.batch_size)
    check_items(parser, "test", args.n_test_items, mnist.N_TEST, args.test_batch_size)
    check_digits(parser, args.precision_fractional, "semi2k")
    check_seed(parser, args.seed + args.epochs)  # `moved_batches` counts on from it
    if not 0 < args.momentum < 1:
        parser.error(f"--momentum {args.momentum:g}: use above 0 and below 1")
    args.protocol = "semi2k"
    return args


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, stride=2)
        self.conv2 = nn.Conv2d(16, 64, 3)
        self.fc1 = nn.Linear(64 * 3 * 3, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = x[:, :, 2:26, 2:26]  # (B, 1, 24, 24), the rest being black
        x = F.relu(F.max_pool2d(self.conv1(x), 2))  # (B, 16, 5, 5)
        x = F.relu(self.conv2(x))  # (B, 64, 3, 3)
        x = x.flatten(1)  # (B, 576)
        x = F.relu(self.fc1(x))  # (B, 64)
        x = self.fc2(x)  # (B, 10)
        return x


def moved_batches(args, epoch):
    """The training batches, each image moved by up to a pixel in each direction: its owner does
    that before it is shared, in every epoch anew."""
    generator = torch.Generator().manual_seed(args.seed + epoch)
    for data, target in tutorial.get_data_loader(args, train=True):
        around = F.pad(data, (1, 1, 1, 1), value=BLACK)
        corners = torch.randint(3, (len(data), 2), generator=generator).tolist()
        moved = [x[:, i : i + 28, j : j + 28] for x, (i, j) in zip(around, corners, strict=True)]
        yield torch.stack(moved), target


def train(args, model, private_train_loader, optimizer, epoch, run):
    model.train()
    n, private_batches = args.n_train_items, run.batches(epoch, private_train_loader)
    for batch_idx, (data, target) in private_batches:
        start_time = time.time()

        optimizer.zero_grad()

        output = model(data)

        loss = F.cross_entropy(output, target)

        loss.backward()

        optimizer.step()

        loss = loss.get().float_precision()
        run.say(
            "Train Epoch: {} [{}/{} ({:.0%})]\tLoss: {:.6f}\tTime: {:.3f}s".format(
                epoch, run.done, n, run.done / n, loss.item(), time.time() - start_time
            )
        )
        run.trained(epoch, batch_idx, len(target), loss, start_time)


def train_in_the_clear(model, train_loader, test_loader, optimizer, run):
    """An epoch of the plain twin, and how many of the test items it then has right."""
    for data, target in train_loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data), target)
        loss.backward()
        optimizer.step()
        run.twin["losses"].append(loss.item())
    run.twin["correct"].append(count_correct(model, test_loader))


def train_and_test(args, model, twin, share, run, out):
    """All epochs; of the twin, too, each after the encrypted one."""
    options = {"lr": args.lr[0], "momentum": args.momentum, "nesterov": True}
    optimizer, twins = (optim.SGD(net.parameters(), **options) for net in (model, twin))
    test_loader = tutorial.get_data_loader(args, train=False)
    for epoch in range(1, args.epochs + 1):
        for each in (optimizer, twins):
            each.param_groups[0]["lr"] = learning_rate(args, epoch)
        private = PrivateLoader(
            moved_batches(args, epoch), share, lambda target: share(tutorial.one_hot_of(target))
        )
        train(args, model, private, optimizer, epoch, run)
        private = PrivateLoader(test_loader, share, lambda target: share(target.float()))
        tutorial.test(args, model, private, epoch, run)
        train_in_the_clear(twin, moved_batches(args, epoch), test_loader, twins, run)
        run.save(out)


@process.in_order(PROGRAM)
def main():
    args = parse_arguments()
    mnist.prepare(args.data_dir)
    out = prepare_folder(args.out)

    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    hook = sy.TorchHook(torch)
    semi2k.install()
    workers = tutorial.connect_to_workers(hook, n_workers=2)
    crypto_provider = tutorial.connect_to_crypto_provider(hook)

    def share(tensor):
        return tutorial.secret_share(tensor, args, workers, crypto_provider)

    model = Net()
    twin = copy.deepcopy(model)
    model = model.fix_precision(precision_fractional=args.precision_fractional).share(
        *workers, crypto_provider=crypto_provider, protocol=args.protocol, requires_grad=True
    )

    run = report.Run(vars(args), semi2k.counters, published=(), program=PROGRAM)
    run.twin = {"losses": [], "correct": []}
    with run.ending(out):
        train_and_test(args, model, twin, share, run, out)


if __name__ == "__main__":
    main()
