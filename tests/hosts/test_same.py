"""Over gRPC and in memory the same ends run: under the same keys they open the same bits."""

import numpy as np
import pytest

from smpc.semi2k.run import Run
from smpc.semi2k.worker import Worker
from tests.hosts.conftest import BATCH, ITEMS, STEPS, Prediction, Training

KEYS = [bytes(range(i, i + 32)) for i in range(6)]  # of all ends; held in this test alone


@pytest.fixture
def opened(monkeypatch):
    """What workers have been opened, in order: party -> uint64 arrays of words, and of bits."""
    seen = {}

    class Watched(Run):
        def resume(self, opened_words, opened_bits):
            seen.setdefault(self.party, []).append((opened_words.copy(), opened_bits.copy()))
            super().resume(opened_words, opened_bits)

    monkeypatch.setattr(Worker, "RUN", Watched)
    return seen


def train(session):
    """The losses of the plan's steps."""
    training = Training(session)
    return [training.step(training.batch(owner)).item() for owner in STEPS]


def predict(session):
    """Nothing: what is revealed, carol reads."""
    prediction = Prediction(session)
    for start in range(0, ITEMS, BATCH):
        prediction.classify(*prediction.images(start))


@pytest.mark.parametrize(
    ("parties", "run", "n_rounds", "more_than"),
    [("planned", train, len(STEPS), 1000), ("predicting", predict, 2 * 5, 50)],
)
def test_what_is_opened_is_the_same(
    request, parties, run, n_rounds, more_than, opened, monkeypatch
):
    parties = request.getfixturevalue(parties)
    monkeypatch.setattr("smpc.semi2k.provider.new_key", iter(KEYS * 2).__next__)
    revealed = run(parties.in_memory())
    in_memory, read = dict(opened), parties.read["carol"].copy()
    opened.clear()
    parties.serve()
    with parties.connected() as session:
        assert run(session) == revealed
    assert parties.read["carol"] == read * 2
    assert sorted(opened) == sorted(in_memory) == [0, 1]
    for party, rounds in opened.items():
        assert len(rounds) == len(in_memory[party]) == n_rounds
        for now, before in zip(rounds, in_memory[party], strict=True):
            assert all(map(np.array_equal, now, before))
    assert sum(words.size for words, _ in opened[0]) > more_than
