"""Integers shared as they are, without fixed precision."""

import pytest
import torch


@pytest.fixture(scope="session")
def share_integers(parties):
    """share_integers(values) -> a semi2k tensor of int64."""

    def share_integers(values):
        return torch.as_tensor(values).share(
            *parties.workers, crypto_provider=parties.crypto_provider, protocol="semi2k"
        )

    return share_integers


def reveal_integers(tensor):
    """The int64 value of a shared tensor, which stays shared."""
    return tensor.copy().get()
