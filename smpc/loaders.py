"""Batches of (data, target) that are secret-shared as they are read."""

from collections.abc import Callable, Iterable, Iterator

import torch

from smpc.arguments import HELD_ITEMS

Batch = tuple[torch.Tensor, torch.Tensor]  # (data, target)
Share = Callable[[torch.Tensor], torch.Tensor]


class PrivateLoader:
    """Batches (data, target), each secret-shared when it is asked for, in every epoch anew."""

    def __init__(self, loader: Iterable[Batch], share_data: Share, share_target: Share):
        self.loader, self.share_data, self.share_target = loader, share_data, share_target

    def __iter__(self) -> Iterator[Batch]:
        for data, target in self.loader:
            yield self.share_data(data), self.share_target(target)


def private_loader(
    loader: torch.utils.data.DataLoader, share_data: Share, share_target: Share
) -> Iterable[Batch]:
    """The batches of `loader`. Few items are shared once, here, and stay shared; of many, a
    batch is shared when it is needed."""
    private = PrivateLoader(loader, share_data, share_target)
    return list(private) if len(loader.dataset) <= HELD_ITEMS else private


def draw(n: int):
    """Draw n numbers of 64 bits from torch's generator, and drop them."""
    torch.empty(n, dtype=torch.int64).random_(-(2**63), 2**63 - 1)


def draw_as_the_tutorial(args, n: int):
    """Under semi2k, draw n numbers of 64 bits from torch's generator, and drop them. The tutorial's
    masks come from it, before the weights do; semi2k's come from the operating system."""
    if args.protocol == "semi2k":
        draw(n)
