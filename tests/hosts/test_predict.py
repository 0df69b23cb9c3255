"""Predictions for a client on a host of its own: what it gives, and what it alone is told."""

import importlib
import re

import numpy as np
import pytest
import torch

from smpc.hosts.calls import Calls
from smpc.hosts.channels import ANY
from smpc.hosts.loopback import IMAGES, Loopback, LoopbackError
from smpc.hosts.parts import PREDICT, Part
from smpc.hosts.plans import Plan, PlanError
from smpc.model import save_model
from smpc.semi2k.network import NetworkError
from smpc.semi2k.wire import Refused
from tests.hosts.conftest import (
    BATCH,
    DIGITS,
    ITEMS,
    LAYER,
    TIME_LIMIT,
    Prediction,
    initial,
    owners_share_anything,
)
from tests.hosts.test_hosts import finished, started
from train_encrypted import ACTIVATIONS, Net

SCRIPT = "predict_encrypted.py"
N_IMAGES = 96


# ---- Processes, over TLS -------------------------------------------------------------------------


def learnt():
    """A network that has learnt a little, from MNIST's first training items."""
    batch = Part(IMAGES.parent).batch("train", 0, 640, DIGITS)
    images, wanted = (torch.tensor(batch[name]).float() for name in ("images", "one_hot"))
    images, wanted = images.view(-1, 784) / 10**DIGITS, wanted / 10**DIGITS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Net(ACTIVATIONS["relu"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        ((model(images) - wanted) ** 2).sum(dim=1).mean().backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """`Loopback` with carol, who has images; none serves yet, and the model is in m.pt."""
    folder = tmp_path_factory.mktemp("hosts")
    hosts = Loopback(folder, n_train=64, n_test=N_IMAGES, clients=("carol",))
    hosts.prepare()
    hosts.model = learnt()
    save_model(hosts.model.state_dict(), folder / "m.pt")
    return hosts


def digits_in(printed):
    """Those that carol's party has printed, in order."""
    lines = re.findall(r"^revealed: ([\d ]+)$", printed, re.M)
    return [int(digit) for line in lines for digit in line.split()]


def check_digits(hosts, printed):
    """Check that carol was told what the model says in the clear, but for near ties."""
    images = torch.tensor(Part(IMAGES.parent).batch(PREDICT, 0, N_IMAGES, DIGITS)["images"])
    with torch.no_grad():
        expected = hosts.model(images.float().view(-1, 784) / 10**DIGITS).argmax(dim=1)
    digits = digits_in(printed)
    assert len(digits) == N_IMAGES
    assert np.mean(np.array(digits) == expected.numpy()) >= 0.97


def predict(hosts, *options):
    """What the server prints."""
    command = hosts.script_command(*options, script=SCRIPT)
    status, out, err = finished(started(command))
    assert (status, err) == (0, "")
    return out


SAID = rf"""digits revealed to carol: {N_IMAGES}
images at once: 1    median milliseconds: \d+\.\d
images at once: 64   median milliseconds: \d+\.\d
"""


def test_prediction_on_hosts(prepared):
    """The client alone is told the digits. The workers give no data, and need none."""
    hosts, plan = prepared, prepared.folder / "predict.json"
    hosts.script("--write-plan", plan, script=SCRIPT)
    shown = hosts.hosts("show", plan)
    assert shown.endswith(f"in all: {N_IMAGES} to carol; meant as the digits of {N_IMAGES} items\n")
    for name in hosts.workers:
        (hosts.folder / "parts" / name).rename(hosts.folder / f"{name}'s")
    try:
        with hosts.serving("--plan", plan, clients=hosts.clients):
            out = predict(hosts, hosts.folder / "m.pt", "--plan", plan)
            said = {name: hosts.stop(name) for name in list(hosts.running)}
    finally:
        for name in hosts.workers:
            (hosts.folder / f"{name}'s").rename(hosts.folder / "parts" / name)
    assert re.fullmatch(SAID, out)
    printed, err = said.pop("carol")
    check_digits(hosts, printed)
    assert (printed.splitlines()[-1], err) == ("carol has ended", "")
    assert said == {name: (f"{name} has ended\n", "") for name in said}
    for name in hosts.workers:
        told = hosts.hosts("journal", hosts.folder / name)
        assert f"revealed: {N_IMAGES} numbers\n" in told and "numbers to carol-data" in told
        assert "to server" not in told and "shared, masked: 0 items\n" in told
    told = hosts.hosts("journal", hosts.folder / "carol", "--all")
    assert f"shared, masked: {N_IMAGES} items\n" in told
    assert "shared images of predict items 0 to 0, masked, with alice, bob\n" in told
    assert "labels" not in told


@pytest.mark.thorough
def test_a_client_is_not_called_for_a_training(prepared, tmp_path):
    """With a plan, and without one, when it is up for what comes after it."""
    hosts = prepared
    options = ("--epochs", 1, "--n-train-items", 64, "--n-test-items", 64)
    hosts.write_plan(*options)
    serve = ("serve", "alice", "--parties", hosts.parties, "--plan", hosts.plan)
    with pytest.raises(LoopbackError, match="and --data has 0 training and 0 test items"):
        hosts.hosts(*serve)  # a worker gives items here
    with hosts.serving():
        out = hosts.script("--plan", hosts.plan, "--out", tmp_path / "results")
    assert "Test set: Accuracy: " in out
    with hosts.serving("--any-program"):
        out = hosts.script(*options, "--out", tmp_path / "results")
        assert "Test set: Accuracy: " in out
        hosts.start("carol", "--any-program")
        out = predict(hosts, hosts.folder / "m.pt")
        printed, _ = hosts.stop("carol")
        assert re.fullmatch(SAID, out)
        check_digits(hosts, printed)
        command = hosts.script_command(hosts.folder / "m.pt", "--time-limit", 3, script=SCRIPT)
        status, out, err = finished(started(command))
    assert (status, out) == (1, "") and err.count("\n") == 1
    assert err.startswith(f"{SCRIPT}: error: carol at 127.0.0.1:") and "cannot be reached" in err


# ---- What a user does wrong ----------------------------------------------------------------------


@pytest.fixture
def refuses(parties, prepared, monkeypatch, fails):
    """refuses(script, *options) -> the one line with which it ends."""

    def refuses(script, *options, file=prepared.parties):
        argv = [script, "--parties", file, *options]
        monkeypatch.setattr("sys.argv", [*map(str, argv)])
        return fails(script, importlib.import_module(script.removesuffix(".py")).main)

    return refuses


def test_more_items_than_clients_have(prepared, refuses, tmp_path):
    line = refuses(SCRIPT, "--write-plan", tmp_path / "p.json", "--n-test-items", N_IMAGES + 1)
    assert line.endswith(f"the owners in the parties file have {N_IMAGES}\n")
    assert not (tmp_path / "p.json").exists()


def test_no_client_or_one_without_images(prepared, refuses, tmp_path):
    blocks = re.split(r"(?m)^(?=\[\[party\]\])", prepared.parties.read_text())
    file = tmp_path / "parties.toml"
    without = "".join(block for block in blocks if 'name = "carol"' not in block)
    for text in (without, "".join(blocks).replace(f"test_items = {N_IMAGES}", "test_items = 0")):
        file.write_text(text)
        line = refuses(SCRIPT, "--write-plan", tmp_path / "p.json", file=file)
        assert line.endswith(f"{file}: no client in it has items to be classified\n")


def test_the_plan_of_another_script(prepared, refuses, tmp_path):
    trains, predicts = tmp_path / "trains.json", tmp_path / "predicts.json"
    options = ("--epochs", 1, "--n-train-items", 64, "--n-test-items", 64)
    prepared.script("--write-plan", trains, *options)
    prepared.script("--write-plan", predicts, "--n-test-items", 64, script=SCRIPT)
    train = "train_encrypted.py"
    line = refuses(SCRIPT, prepared.folder / "m.pt", "--plan", trains)
    assert line.endswith(f"{trains}: it was made for {train}, and not for {SCRIPT}\n")
    line = refuses(train, "--plan", predicts)
    assert line.endswith(f"{predicts}: it was made for {SCRIPT}, and not for {train}\n")
    line = refuses(SCRIPT, prepared.folder / "m.pt", "--plan", predicts, "--n-test-items", 65)
    assert line.endswith(f"{predicts}: it was made with --n-test-items 64, not 65\n")


def test_no_model_or_one_too_many(prepared, refuses, tmp_path):
    assert refuses(SCRIPT).endswith("say which model: a file of --save-model\n")
    assert "No such file" in refuses(SCRIPT, prepared.folder / "nothing.pt")
    line = refuses(SCRIPT, prepared.folder / "m.pt", "--write-plan", tmp_path / "p.json")
    assert line.endswith("--write-plan: a plan is made without the model, leave it out\n")


# ---- Consent -------------------------------------------------------------------------------------


def answers_in_the_clear(part):
    """1 where an image looks like a digit, else 0: what carol reads of each of her batches."""
    images = part.batch(PREDICT, 0, ITEMS, DIGITS)["images"].reshape(ITEMS, LAYER[0])
    return (images @ initial().T > 0).astype(int).reshape(ITEMS // BATCH, -1).tolist()


def goes_through(predicting):
    """Check that, in a new session, carol alone reads what the plan has revealed."""
    before = len(predicting.read["carol"])
    prediction = Prediction(predicting.in_memory())
    for start in range(0, ITEMS, BATCH):
        assert prediction.classify(*prediction.images(start)) is None
    answers = answers_in_the_clear(predicting.hosts.parts["carol"])
    assert predicting.read["carol"][before:] == answers
    assert not any(predicting.read[name] for name in ("alice", "bob", "dealer"))


def to_the_server(session):
    prediction = Prediction(session)
    prediction.classify(*prediction.images(), to=None)


def to_a_worker(session):
    prediction = Prediction(session)
    prediction.classify(*prediction.images(), to="bob-data")


def an_image_to_the_server(session):
    (images,) = Prediction(session).images()
    session.reveal(images)


def an_image_to_the_client(session):
    (images,) = Prediction(session).images()
    session.reveal_to(images, "carol-data")


def other_images(session):
    owners_share_anything(session)
    prediction = Prediction(session)
    prediction.classify(*prediction.images(start=1))


def images_with_labels(session):
    owners_share_anything(session)
    prediction = Prediction(session)
    images, _ = prediction.images(which="test")
    prediction.classify(images)


def public_weights(session):
    prediction = Prediction(session)
    session.owner = None
    prediction.weights = session.share(initial())
    prediction.classify(*prediction.images())


def weights_without_a_label(session):
    prediction = Prediction(session)
    prediction.weights = session.share(initial())
    prediction.classify(*prediction.images())


@pytest.mark.parametrize(
    "attack",
    [
        to_the_server,
        to_a_worker,
        an_image_to_the_server,
        an_image_to_the_client,
        other_images,
        images_with_labels,
        public_weights,
        weights_without_a_label,
    ],
)
def test_anything_else_than_the_prediction_is_refused(predicting, attack):
    with pytest.raises(Refused, match=r"^the plan has something else at position 0$"):
        attack(predicting.in_memory())
    assert predicting.entries("alice", "revealed") == []
    assert not any(predicting.read.values())
    goes_through(predicting)


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_each_worker_refuses_by_itself(predicting, who):
    session = predicting.in_memory()
    for name in {"alice", "bob", "dealer"} - {who}:
        session.network.ends[name].consent = None
    with pytest.raises(Refused, match=r"^the plan has something else at position 0$"):
        to_the_server(session)


@pytest.mark.parametrize(("start", "which"), [(1, PREDICT), (0, "test"), (BATCH, "test")])
def test_the_client_shares_the_plans_images_alone(predicting, start, which):
    prediction = Prediction(predicting.in_memory())
    with pytest.raises(Refused, match=f"the plan is not on these {which} items$"):
        prediction.images(start, which)
    assert predicting.entries("carol", "shared") == []
    goes_through(predicting)


def test_no_image_is_saved_in_a_checkpoint(predicting):
    session = predicting.in_memory()
    (images,) = Prediction(session).images()
    with pytest.raises(Refused, match=r"^the plan has no such checkpoint$"):
        session.save([images], "run", 1, None)
    assert not [*predicting.folder.rglob("*.shares")]
    goes_through(predicting)


def test_a_session_under_another_plan_is_refused(hosts, predicting):
    """A training is no prediction, nor is anything without a plan."""
    predicting.serve()
    for digest in (hosts.plan.digest, ANY):
        about = {"session": "a" * 32, "plan": digest}
        with pytest.raises(NetworkError, match="serves under another plan"):
            Calls(hosts.configuration, *hosts.identities["server"], about, TIME_LIMIT)
    for name in ("alice", "bob", "dealer", "carol"):
        assert predicting.entries(name, "run") == []


def test_labels_are_not_shared_for_a_prediction(predicting):
    part = predicting.hosts.parts["carol"]
    assert part.labels["test"] is not None
    assert list(part.batch(PREDICT, 0, BATCH, DIGITS)) == ["images"]
    goes_through(predicting)
    names = [entry["names"] for entry in predicting.entries("carol", "shared")]
    assert names == [["images"]] * 2


def test_public_weights_are_none_of_a_prediction(predicting):
    """A plan with weights that nobody can make is not consented to."""
    content = predicting.plan.content
    content = {**content, "rows": [dict(row) for row in content["rows"]]}
    (weights,) = [i for i in content["rows"][0]["inputs"] if "weight" in i]
    inputs = content["rows"][0]["inputs"]
    content["rows"][0]["inputs"] = [f"public {'0' * 64}" if i == weights else i for i in inputs]
    with pytest.raises(PlanError, match=r"^its weights are not those"):
        Plan(content).check_weights()
