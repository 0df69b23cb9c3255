"""The parties, for the tests that run in this process; and how programs are started."""

from types import SimpleNamespace

import pytest

from smpc import compat

compat.prepare()

import syft  # noqa: E402
import torch  # noqa: E402

from smpc import syft_binding as semi2k  # noqa: E402
from tests import programs  # noqa: E402


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes():
    """One server for all processes of xdist."""
    programs.server()


@pytest.fixture(scope="session", autouse=True)
def forked():
    """Programs of this repository are forked from a process that has imported torch and syft."""
    with programs.forked():
        yield


# Begun first, so that no process is left alone with one of them at the end.
LONGEST = (
    *("test_smoke", "test_catalogue", "test_hosts", "test_simulator", "test_audit"),
    *("test_nothing_lost", "test_transcripts", "test_checkpoint", "test_refused"),
    *("test_deployment", "test_document", "test_private", "test_predict", "test_compat"),
)


def pytest_collection_modifyitems(items):
    """Files in the order of LONGEST, and then the others."""
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session")
def parties():
    """syft's hook on torch, two workers and a crypto provider; `of(n)`: the same with n workers."""
    hook = syft.TorchHook(torch)
    torch.set_num_threads(1)
    semi2k.install()
    *workers, crypto_provider = (
        syft.VirtualWorker(hook, id=name)
        for name in (*(f"worker{i + 1}" for i in range(5)), "crypto_provider")
    )

    def of(n):
        return SimpleNamespace(workers=tuple(workers[:n]), crypto_provider=crypto_provider, of=of)

    return of(2)


@pytest.fixture(scope="session")
def share(parties):
    """share(values, protocol) -> a secret-shared, fixed-precision tensor with gradients."""

    def share(values, protocol, **kwargs):
        return (
            torch.as_tensor(values)
            .fix_precision(**kwargs)
            .share(
                *parties.workers,
                crypto_provider=parties.crypto_provider,
                protocol=protocol,
                requires_grad=True,
            )
        )

    return share


def reveal(tensor):
    """The float value of a shared tensor, which stays shared."""
    return tensor.copy().get().float_precision()


@pytest.fixture
def fails(capsys):
    """fails(program, call) -> the one line that a call prints before it ends with status 2."""

    def fails(program, call):
        with pytest.raises(SystemExit) as ended:
            call()
        assert ended.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"{program}: error: ")
        assert err.count("\n") == 1
        return err

    return fails
