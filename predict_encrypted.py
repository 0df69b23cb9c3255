"""Encrypted prediction: the tutorial's section 6.1 asks when it alone is enough.

    python train_encrypted.py --save-model model.pt
    python predict_encrypted.py model.pt
    python predict_encrypted.py --help

The model's owner shares the weights between the two workers, a client shares its images; the
workers classify them under encryption, and reveal the digits to the client. Nobody else sees an
image, a weight or a digit. Here, where all parties are one process, this script plays the model's
owner, the client, and the orchestrator, to whom the digits are revealed for the client.
"""

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
    add("model", type=arguments.path, help="file with the weights, of --save-model")
    add("--n-test-items", type=count, default=640, help="items to classify, of MNIST's 10,000")
    add("--test-batch-size", type=count, default=64, help="items a batch")
    add("--precision-fractional", type=int, default=3, help="decimal digits of fixed precision")
    add("--activation", choices=list(ACTIVATIONS), default="relu", help="of the hidden layers")
    add("--data-dir", type=arguments.path, default="./data", help="folder that holds MNIST/raw/")
    args = parser.parse_args(argv)
    args.protocol = "semi2k"
    arguments.check_items(parser, "test", args.n_test_items, mnist.N_TEST, args.test_batch_size)
    arguments.check_digits(parser, args.precision_fractional, args.protocol)
    return args


def predict(args, model, data, workers, crypto_provider):
    """Classify a batch of images (B, 1, 28, 28).

    Returns:
        the digits (B), and the seconds from the sharing of the pixels to the reading of the digits.
    """
    start_time = time.time()
    with torch.no_grad():
        output = model(secret_share(data, args, workers, crypto_provider))
    digits = output.argmax(dim=1).get().float_precision()
    return digits, time.time() - start_time


@process.in_order(PROGRAM)
def main():
    args = parse_arguments()
    model = Net(ACTIVATIONS[args.activation])
    load_model(model, args.model)
    try:
        mnist.prepare(args.data_dir)
    except mnist.DataError as error:
        process.fail(error, PROGRAM)

    torch.set_num_threads(1)
    hook = sy.TorchHook(torch)
    semi2k.install()
    workers = training.connect_to_workers(hook, n_workers=2)
    crypto_provider = training.connect_to_crypto_provider(hook)
    try:
        model = model.fix_precision(precision_fractional=args.precision_fractional).share(
            *workers, crypto_provider=crypto_provider, protocol=args.protocol, requires_grad=True
        )
    except OverflowError as error:
        process.fail(f"{args.model}: {error}", PROGRAM)

    correct, latencies = 0, {1: [], args.test_batch_size: []}
    for data, target in training.get_data_loader(args, train=False):
        for size in latencies:  # the first image alone, then the batch
            digits, seconds = predict(args, model, data[:size], workers, crypto_provider)
            if len(digits) == size:  # a last batch may be shorter
                latencies[size].append(seconds)
        correct += (digits == target).sum().item()

    with process.to_stdout():
        print(f"correct: {correct} of {args.n_test_items}")
        for size, seconds in latencies.items():
            seconds = statistics.median(seconds)
            print(f"images at once: {size:<4} median milliseconds: {1000 * seconds:.1f}")


if __name__ == "__main__":
    main()
