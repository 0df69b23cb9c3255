"""The plain twin: the same network from the same weights on the same batches, in the clear, in
float32."""

import time
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F

from smpc.arguments import learning_rate


def count_correct(
    model: torch.nn.Module, test_loader: Iterable[tuple[torch.Tensor, torch.Tensor]]
) -> int:
    """How many labels a plain model has right, of batches (data, labels)."""
    with torch.no_grad():
        return sum((model(data).argmax(dim=1) == t).sum().item() for data, t in test_loader)


def train_plain_twin(
    args, model: torch.nn.Module, get_data_loader: Callable, run
) -> tuple[list[float], list[int], list[float]]:
    """Train with SGD on the tutorial's loss; for one epoch, to have its seconds, unless
    `args.plain_twin` asks for its results.

    Args:
        get_data_loader: the script's.
        run: the `report.Run`, which may be interrupted.
    Returns:
        every loss, the correct answers after each epoch, and the seconds of each step.
    """
    train_loader, test_loader = (list(get_data_loader(args, train)) for train in (True, False))
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr[0])
    losses, correct, seconds = [], [], []
    for epoch in range(1, args.epochs + 1 if args.plain_twin else 2):
        optimizer.param_groups[0]["lr"] = learning_rate(args, epoch)
        for data, target in train_loader:
            run.stop_if_interrupted()
            start_time = time.time()
            optimizer.zero_grad()
            loss = ((model(data) - F.one_hot(target, 10)) ** 2).sum() / len(data)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            seconds.append(time.time() - start_time)
        correct.append(count_correct(model, test_loader))
    return losses, correct, seconds
