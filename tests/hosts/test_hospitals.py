"""The hospitals on hosts: their own rows, their own plan, the losses of the plain twin."""

import contextlib
import importlib
import io
from types import SimpleNamespace

import pytest
import torch

from smpc.hosts import PROGRAM, plans
from smpc.hosts.__main__ import main
from smpc.hosts.configuration import owner_of
from smpc.hosts.loopback import PROVIDER, TABLE, Loopback
from smpc.hosts.parts import Part
from smpc.hosts.plans import PlanError
from smpc.hosts.tables import NAME, shapes_of
from tests import records

HOSPITALS = ("alice", "bob", "carol")
OPTIONS = ("--epochs", 1, "--batch-size", 80)
N_REVEALED = 2 * 3 + 1 + 2 * 31  # losses, a count, weights


class Hosts(Loopback):
    """Hosts whose administrators' commands run in this process."""

    def hosts(self, *arguments):
        """As `Loopback.hosts`."""
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())) as out:
            main([*map(str, arguments)])
        return out.buffer.getvalue().decode()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """`Hosts` of the hospitals, with a plan; none serves yet."""
    hosts = Hosts(tmp_path_factory.mktemp("hosts"), HOSPITALS, table=TABLE)
    hosts.prepare()
    hosts.write_plan(*OPTIONS, "--save-model", hosts.folder / "model.pt")
    return hosts


def test_the_plan(prepared):
    """What is revealed, and that an owner with other columns, or images, has no such items."""
    plan = plans.read(prepared.plan)
    plan.check_weights()
    shown = plans.summary(plan)
    assert "made for examples.hospitals with: batch_size=80 epochs=1 " in shown
    assert shown.endswith(f"revealed in all: {N_REVEALED} to the server")
    for name, n_test in zip(HOSPITALS, (38, 38, 37), strict=True):
        owner = owner_of(name)
        batches = {batch for batch in plan.batches if batch.startswith(owner)}
        items = ("train 0:80", "train 80:152", f"test 0:{n_test}")
        assert batches == {f"{owner} {which}" for which in items}
        plan.check_items(owner, shapes_of(30))
        for shapes in (shapes_of(29), Part.shapes):
            with pytest.raises(PlanError, match=r"the plan takes (rows|labels) of shape "):
                plan.check_items(owner, shapes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("17.99,", "17.9o,", 1), "row 1, column 1: '17.9o' is no number"),
        (lambda text: text.rpartition("\n17")[0], "its first line says 190 rows, and it has"),
        (
            lambda text: "5,2,malignant,benign\n" + "1,2,0\n" * 5,
            "the plan takes rows of shape (30,)",
        ),
    ],
)
def test_what_is_not_served(prepared, fails, tmp_path, change, message):
    text = (prepared.folder / "parts" / "alice" / NAME).read_text()
    (tmp_path / NAME).write_text(change(text))
    command = ["serve", "alice", "--parties", prepared.parties, "--plan", prepared.plan]
    line = fails(PROGRAM, lambda: main([*map(str, command), "--data", str(tmp_path)]))
    assert message in line


@pytest.fixture
def twin(parties):
    """The losses and the correct answers of the plain twin."""
    example, convnet = (importlib.import_module(f"examples.{n}") for n in ("hospitals", "convnet"))
    args = example.parse_arguments([*map(str, OPTIONS)])
    loaders = example.get_data_loaders(args, example.read_hospitals(args))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        model = example.LogisticRegression()
    twin = {"losses": [], "correct": []}
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    run = SimpleNamespace(twin=twin, say=lambda line: None)
    convnet.train_in_the_clear(model, *loaders, optimizer, run)
    return twin


def test_the_training(prepared, twin):
    """Every hospital is a worker, shares its own rows once, and ends in order."""
    hosts, out = prepared, prepared.folder / "out"
    with hosts.serving():
        model = ("--save-model", hosts.folder / "model.pt")
        hosts.script("--plan", hosts.plan, "--out", out, *model)
        said = {name: hosts.stop(name) for name in (*HOSPITALS, PROVIDER)}
    assert said == {name: (f"{name} has ended\n", "") for name in said}
    record = records.read(out)
    losses = [step["loss"] for step in record["steps"]]
    assert losses == pytest.approx(twin["losses"], abs=0.005)
    (test,), (correct,) = record["tests"], twin["correct"]
    assert test["items"] == 113 and abs(test["correct"] - correct) <= 2
    assert len(record["counters"]["training step"]["sent"]["opening"]) == 3
    weights = torch.load(hosts.folder / "model.pt", weights_only=True)
    assert {name: tuple(w.shape) for name, w in weights.items()} == {
        "fc.weight": (2, 30), "fc.bias": (2,)
    }  # fmt: skip
    for name, n_test in zip(HOSPITALS, (38, 38, 37), strict=True):
        told = hosts.hosts("journal", hosts.folder / name).splitlines()
        assert f"revealed: {N_REVEALED} numbers" in told
        assert f"shared, masked: {152 + n_test} items" in told
        assert "messages refused: 0" in told and "errors: 0" in told
