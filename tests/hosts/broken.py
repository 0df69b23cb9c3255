"""How the tests of transcripts change what a party's process computes: imported there at its start,
as Python's `sitecustomize`."""

import numpy as np

from smpc.semi2k import provider, worker

KEYS = [bytes(range(i, i + 32)) for i in range(6)]  # of all ends; held in these tests alone
TAKE = worker.take


def take(program, drawn, corrections):
    """As `run.take`, but the mask of a truncation is one number for all of a tensor."""
    items = TAKE(program, drawn, corrections)
    for instruction, fields in zip(program.instructions, items, strict=True):
        if instruction.op == "truncate":
            fields["s"] = np.full_like(fields["s"], fields["s"].flat[0])
    return items


def truncate_under_one_mask(replace=setattr):
    """Have all ends in this process do so."""
    for module in (provider, worker):
        replace(module, "take", take)


def hold_the_keys(replace=setattr):
    """Have a provider in this process make these keys."""
    replace(provider, "new_key", iter(KEYS).__next__)
