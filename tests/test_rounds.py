"""What docs/protocol.md says: of rounds and promises, and of what a run made anew tells."""

from itertools import groupby

import numpy as np
import pytest
import syft
import torch

from benchmarks import rounds
from smpc.semi2k import arithmetic, wire
from smpc.semi2k.network import Network


class Net(torch.nn.Module):
    """The tutorial's network, smaller."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = torch.nn.Linear(784, 6), torch.nn.Linear(6, 5)
        self.fc3 = torch.nn.Linear(5, 10)

    def forward(self, x):
        """(B, 1, 28, 28) -> (B, 10)."""
        hidden = self.fc1(x.view(-1, 784)).relu()
        return self.fc3(self.fc2(hidden).relu())


@pytest.fixture(scope="module")
def watched(parties):
    """A step, and the messages of all steps: (sender, receiver, fields)."""
    messages = []
    with pytest.MonkeyPatch.context() as patch:
        carry = Network.carry

        def recording(self, sender, receiver, message):
            messages.append((sender, receiver, wire.unpack(message)))
            return carry(self, sender, receiver, message)

        patch.setattr(Network, "carry", recording)
        provider = syft.VirtualWorker(syft.hook, id="rounds_provider")  # a session of its own
        step = rounds.train(Net(), parties.workers, provider, batch=4)
    return step, messages


def test_each_round_opens_what_the_workers_send(watched):
    step, messages = watched
    told = [
        (sum(o.size for o in r if not o.boolean), sum(o.size for o in r if o.boolean))
        for r in rounds.rounds_of(step)
    ]
    opened = [m for m in messages if m[2]["do"] == "open"]
    last = [[*run] for _, run in groupby(opened, lambda m: (m[2]["run"], m[2]["attempt"]))][-1]
    for worker in {sender for sender, _, _ in last}:
        sent = [(len(f["words"]), len(f["bits"])) for sender, _, f in last if sender == worker]
        assert sent == told
    dealt = [fields for _, _, fields in messages if fields["do"] == "deal"][-1]
    assert len(dealt["corrections"]) == sum(rounds.dealt_of(step.program).values())


def test_each_opening_is_named(watched):
    step, _ = watched
    named = [[opening.what for opening in openings] for openings in rounds.rounds_of(step)]
    assert len(named) == 18
    assert "layer 1: weighted sums" in named[0]
    assert named[1] == ["layer 1: sign, level 1 of its tree"]
    assert named[5] == ["layer 1: ReLU's output"]
    assert named[12] == ["layer 3: weighted sums"]
    assert "update of fc1.weight" in named[-1]
    updates = [what for whats in named for what in whats if what.startswith("update")]
    parameters = [f"fc{i}.{part}" for i in (1, 2, 3) for part in ("weight", "bias")]
    assert sorted(updates) == sorted(f"update of {name}" for name in parameters)


def test_a_promise_is_what_the_zone_leaves(watched):
    step, _ = watched
    promises = {what: (zone, most) for _, what, zone, most in rounds.promises_of(step)}
    assert promises["layer 1: weighted sums"] == (41, (2**40 - 1000) / 10**6)
    assert promises["layer 1: gradient"] == (41, (2**40 - 1000) / 10**9)


def flagged(x, r, d, zone, bits):
    """Whether one element x is, under a mask r, on a ring of so many bits."""
    opening = arithmetic.truncate(0, {"s": np.array([r], np.uint64)}, np.array([x]), d, zone)
    c = next(opening) & np.uint64(2**bits - 1)
    try:
        opening.send(c)
    except StopIteration:
        return False
    except arithmetic.Flagged:
        return True


@pytest.mark.parametrize("moved", [0, 1, 5, 13])
def test_a_run_made_anew_tells_the_provider_no_more_than_the_bound(moved):
    """Of all r as many as 2 |x - x'| flag one value and not the other; each has as many that do."""
    bits, zone, d = 8, 5, 3
    most = 2 ** (zone - 1) - d - 1
    for x in range(-most, most - moved + 1):
        values = np.array([x, x + moved]).astype(np.uint64)
        one, other = ([flagged(v, r, d, zone, bits) for r in range(2**bits)] for v in values)
        assert sum(one) == sum(other) == 2**zone
        assert sum(a != b for a, b in zip(one, other, strict=True)) == 2 * moved
