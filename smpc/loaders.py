"""Batches of (data, target) that are secret-shared as they are read."""

import torch

from smpc.arguments import HELD_ITEMS


class PrivateLoader:
    """Batches (data, target), each secret-shared when it is asked for, in every epoch anew."""

    def __init__(self, loader, share_data, share_target):
        self.loader, self.share_data, self.share_target = loader, share_data, share_target

    def __iter__(self):
        for data, target in self.loader:
            yield self.share_data(data), self.share_target(target)


def private_loader(loader, share_data, share_target):
    """The batches of a DataLoader. Few items are shared once, here, and stay shared; of many, a
    batch is shared when it is needed."""
    private = PrivateLoader(loader, share_data, share_target)
    return list(private) if len(loader.dataset) <= HELD_ITEMS else private


def draw_as_the_tutorial(args, n):
    """Under semi2k, draw n numbers of 64 bits from torch's generator, for nothing. The tutorial's
    masks come from it, before the weights do; semi2k's come from the operating system."""
    if args.protocol == "semi2k":
        torch.empty(n, dtype=torch.int64).random_(-(2**63), 2**63 - 1)
