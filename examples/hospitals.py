"""Three hospitals learn from all their patients to tell malignant from benign, and show none.

    python -m examples.hospitals
    python -m examples.hospitals --parties parties.toml --plan plan.json   # see docs/deployment.md
    python -m examples.hospitals --help

Each hospital has a third of the rows, and is a worker; a crypto provider supplies randomness. The
model is a logistic regression on 30 measurements, trained with SGD on cross-entropy. Each hospital
standardises its measurements by the mean and the deviation of its own training rows, so that nobody
is told these: what sets its patients as a whole apart from another hospital's is lost by that.
Every fifth row is for testing. Beside it the same model is trained in the clear on the same
batches.
"""

import copy

from smpc import process

if __name__ == "__main__":
    process.prepare()  # for Ctrl-C while importing

import train_encrypted as tutorial
from examples import convnet
from smpc import report
from smpc.arguments import (
    Parser,
    add_hosts,
    check_digits,
    check_hosts,
    check_seed,
    path,
    positive,
)
from smpc.files import prepare_folder
from smpc.hosts import on_hosts, tables
from smpc.hosts.grammar import HOSPITALS
from smpc.loaders import PrivateLoader
from smpc.model import save_weights
from train_encrypted import nn, optim, semi2k, sy, torch

N_HOSPITALS = 3
N_FEATURES, CLASSES = 30, 2


def parse_arguments(argv=None):
    parser = Parser(__doc__.split("\n")[0], HOSPITALS)
    add, count = parser.add_argument, positive(int)
    add("--epochs", type=count, default=5, help="passes over the training rows")
    add("--batch-size", type=count, default=32, help="training rows a step, of one hospital")
    add("--test-batch-size", type=count, default=64, help="test rows a batch, of one hospital")
    add("--lr", type=positive(float), default=0.3, help="learning rate")
    add("--seed", type=int, default=1, help="seed of the initial weights")
    add("--precision-fractional", type=int, default=4, help="decimal digits of fixed precision")
    add("--data", type=path, default="examples/breast_cancer/breast_cancer.csv", help="all rows")
    add("--out", type=path, default="results/hospitals", help="for run.json and accuracy.png")
    add("--save-model", type=path, metavar="FILE", help="reveal the trained weights")
    add_hosts(parser)
    args = parser.parse_args(argv)
    check_hosts(parser, args)
    args.protocol, args.exact_truncation = "semi2k", False
    check_digits(parser, args.precision_fractional, args.protocol)
    check_seed(parser, args.seed)
    return args


def read_hospitals(args):
    """A `Table` of each hospital's own rows."""
    table = tables.read(args.data)
    if table.shapes != tables.shapes_of(N_FEATURES) or len(table.classes) != CLASSES:
        raise tables.TableError(f"{args.data}: use {N_FEATURES} columns and {CLASSES} classes")
    return table.dealt(N_HOSPITALS)


def get_data_loaders(args, hospitals):
    """Batches of float rows (B, 30) and labels (B), one hospital's after the other's, for training
    and for testing."""

    def batches(which, size):
        for hospital in hospitals:
            rows, labels = map(torch.from_numpy, hospital.sets[which])
            yield from zip(rows.split(size), labels.split(size), strict=True)

    return list(batches("train", args.batch_size)), list(batches("test", args.test_batch_size))


def get_private_data_loaders(args, loaders, workers, crypto_provider):
    """The hospitals' part: the same batches, secret-shared between the workers."""

    def share(tensor):
        return tutorial.secret_share(tensor.float(), args, workers, crypto_provider)

    return [list(PrivateLoader(loader, share, share)) for loader in loaders]


class LogisticRegression(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(N_FEATURES, CLASSES)

    def forward(self, x):
        return self.fc(x)  # (B, 2)


@process.in_order(HOSPITALS)
def main():
    args = parse_arguments()
    hosts = on_hosts(args, HOSPITALS, tables.shapes_of(N_FEATURES))
    hospitals = [] if hosts else read_hospitals(args)
    out = prepare_folder(args.out)

    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    hook = sy.TorchHook(torch)
    semi2k.install()
    model = LogisticRegression()
    twin = copy.deepcopy(model)
    if hosts is None:
        workers = tutorial.connect_to_workers(hook, N_HOSPITALS)
        crypto_provider = tutorial.connect_to_crypto_provider(hook)
        loaders = get_data_loaders(args, hospitals)
        private_loaders = get_private_data_loaders(args, loaders, workers, crypto_provider)
        args.n_train_items, args.n_test_items = (
            sum(len(target) for _, target in loader) for loader in loaders
        )
    else:
        workers, crypto_provider = hosts.connect(hook)
        private_loaders = hosts.loaders()

    model = model.fix_precision(precision_fractional=args.precision_fractional).share(
        *workers, crypto_provider=crypto_provider, protocol=args.protocol, requires_grad=True
    )
    optimizer, twins = (optim.SGD(net.parameters(), lr=args.lr) for net in (model, twin))

    run = report.Run(vars(args), semi2k.counters, published=(), program=HOSPITALS)
    run.twin = None if hosts else {"losses": [], "correct": []}
    with run.ending(out):
        for epoch in range(1, args.epochs + 1):
            convnet.train(args, model, private_loaders[0], optimizer, epoch, run)
            tutorial.test(args, model, private_loaders[1], epoch, run)
            if hosts is None:
                convnet.train_in_the_clear(twin, *loaders, twins, run)
                run.say(f"The twin in the clear: {run.twin['correct'][-1]}/{args.n_test_items}\n")
            run.save(out)
        save_weights(args, model, run)
        if hosts:
            hosts.finish(model)


if __name__ == "__main__":
    main()
