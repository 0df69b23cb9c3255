"""Encrypted prediction: the tutorial's section 6.1 asks when it alone is enough.

    python train_encrypted.py --save-model model.pt
    python predict_encrypted.py model.pt
    python predict_encrypted.py --help

The model's owner shares the weights between the two workers, a client shares its images; the
workers classify them under encryption, and reveal the digits to the client. Nobody else sees an
image, a weight or a digit. Where all parties are one process, this script plays the model's owner,
the client, and the orchestrator, to whom the digits are revealed for the client. With `--parties`
each is on a host of its own, and this is the server, which owns the model and sees no digit.
"""

import collections
import functools
import statistics
import time

from smpc import process

if __name__ == "__main__":
    process.prepare()  # for Ctrl-C while importing

import train_encrypted as training
from smpc import arguments, mnist
from smpc.model import load_model
from train_encrypted import ACTIVATIONS, Net, secret_share, semi2k, sy, torch

PROGRAM = "predict_encrypted.py"


def parse_arguments(argv=None):
    parser = arguments.Parser(__doc__.split("\n")[0], PROGRAM)
    add, count = parser.add_argument, arguments.positive(int)
    add("model", type=arguments.path, nargs="?", help="file with the weights, of --save-model")
    items = "items to classify: 640 of MNIST's 10,000; on hosts all that the clients have"
    add("--n-test-items", type=count, help=items)
    add("--test-batch-size", type=count, default=64, help="items a batch")
    add("--precision-fractional", type=int, default=3, help="decimal digits of fixed precision")
    add("--activation", choices=list(ACTIVATIONS), default="relu", help="of the hidden layers")
    add("--data-dir", type=arguments.path, default="./data", help="folder that holds MNIST/raw/")
    arguments.add_hosts(parser)
    args = parser.parse_args(argv)
    args.protocol = "semi2k"
    arguments.check_hosts(parser, args)
    if not args.model and not args.write_plan:
        parser.error("say which model: a file of --save-model")
    if args.model and args.write_plan:
        parser.error("--write-plan: a plan is made without the model, leave it out")
    if not args.parties:
        args.n_test_items = args.n_test_items or 640
        arguments.check_items(parser, "test", args.n_test_items, mnist.N_TEST, args.test_batch_size)
    arguments.check_digits(parser, args.precision_fractional, args.protocol)
    return args


def clients_on_hosts(args):
    """The parties where each is on a host of its own, and the images at the clients."""
    from smpc.hosts.script import ForClients  # here, since only this needs gRPC

    return ForClients(args)


def predict(model, share, reveal):
    """Classify a batch of images.

    Args:
        share: called to share them, it gives the shares (B, 1, 28, 28).
        reveal: called with the shares of the digits (B).
    Returns:
        what `reveal` does, and the seconds from the sharing of the pixels to its end.
    """
    start_time = time.time()
    with torch.no_grad():
        digits = reveal(model(share()).argmax(dim=1))
    return digits, time.time() - start_time


def predict_here(args, model, workers, crypto_provider):
    """Classify MNIST's items: of each batch the first alone, and then all.

    Returns:
        how many are right, and the seconds of each prediction, by the number of images.
    """

    def share(images):
        return secret_share(images, args, workers, crypto_provider)

    def reveal(digits):
        return digits.get().float_precision()

    correct, latencies = 0, {1: [], args.test_batch_size: []}
    for data, target in training.get_data_loader(args, train=False):
        for size in latencies:
            digits, seconds = predict(model, functools.partial(share, data[:size]), reveal)
            if len(digits) == size:  # a last batch may be shorter
                latencies[size].append(seconds)
        correct += (digits == target).sum().item()
    return correct, latencies


def predict_on_hosts(args, model, hosts):
    """Classify the clients' images; what they are, each client alone gets to know.

    Returns:
        how many digits were revealed, by the name of the client; and the seconds, as above.
    """
    revealed, latencies = collections.Counter(), {1: [], args.test_batch_size: []}
    for client, batch in hosts.batches():
        _, seconds = predict(model, batch.share, batch.reveal)
        revealed[client] += batch.n_items
        if batch.n_items in latencies:
            latencies[batch.n_items].append(seconds)
    return revealed, latencies


@process.in_order(PROGRAM)
def main():
    args = parse_arguments()
    hosts = clients_on_hosts(args) if args.parties else None
    model = Net(ACTIVATIONS[args.activation])
    if not args.write_plan:
        load_model(model, args.model)
    if hosts is None:
        mnist.prepare(args.data_dir)

    torch.set_num_threads(1)
    hook = sy.TorchHook(torch)
    semi2k.install()
    if hosts is None:
        workers = training.connect_to_workers(hook, n_workers=2)
        crypto_provider = training.connect_to_crypto_provider(hook)
    else:
        workers, crypto_provider = hosts.connect(hook)
        hosts.owns(model)
    try:
        model = model.fix_precision(precision_fractional=args.precision_fractional).share(
            *workers, crypto_provider=crypto_provider, protocol=args.protocol, requires_grad=True
        )
    except OverflowError as error:
        process.fail(f"{args.model}: {error}", PROGRAM)

    if hosts is None:
        correct, latencies = predict_here(args, model, workers, crypto_provider)
        lines = [f"correct: {correct} of {args.n_test_items}"]
    else:
        revealed, latencies = predict_on_hosts(args, model, hosts)
        lines = [f"digits revealed to {client}: {n}" for client, n in revealed.items()]
        hosts.finish()
    for size, seconds in latencies.items():
        if seconds:  # of fewer images than a batch there is none
            milliseconds = 1000 * statistics.median(seconds)
            lines.append(f"images at once: {size:<4} median milliseconds: {milliseconds:.1f}")
    if not args.write_plan:
        with process.to_stdout():
            print("\n".join(lines))


if __name__ == "__main__":
    main()
