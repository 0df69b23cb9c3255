"""Recorded runs of semi2k: small, in this process, each in a session of its own."""

import pytest
import syft
import torch

from smpc.audit.transcript import Recorder, Transcript
from tests.audit.party import NAME


@pytest.fixture
def new_session(parties, monkeypatch):
    """The next sharing makes a session anew; the one there was is back after the test."""
    for party in (*parties.workers, parties.crypto_provider, syft.local_worker):
        monkeypatch.delitem(party.crypto_store.semi2k, NAME, raising=False)


@pytest.fixture
def recorded(new_session, share, parties, tmp_path):
    """recorded(after_sharing) -> the `Transcript` of two training steps of a small network.

    after_sharing: called once everything is shared, before the first step.
    """

    def recorded(after_sharing=lambda: None):
        path = tmp_path / "run.jsonl"
        recorder = Recorder(path, {"protocol": "semi2k"})
        recorder.start()
        try:
            torch.manual_seed(1)
            data, target = (
                share(2 * torch.rand(16, 16), "semi2k"),
                share(torch.eye(16, 8), "semi2k"),
            )
            net = torch.nn.Sequential(
                torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8)
            )
            net.fix_precision().share(
                *parties.workers,
                crypto_provider=parties.crypto_provider,
                protocol="semi2k",
                requires_grad=True,
            )
            optimizer = torch.optim.SGD(net.parameters(), lr=0.02).fix_precision()
            recorder.inputs_are_shared()
            after_sharing()
            for _ in range(2):
                optimizer.zero_grad()
                loss = ((net(data) - target) ** 2).sum() / 16
                loss.backward()
                optimizer.step()
                loss.get()
        finally:
            recorder.stop()
        recorder.save()
        return Transcript(path)

    return recorded
