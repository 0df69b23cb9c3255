"""`tutorial.ipynb`: it runs from start to end, is the tutorial's, and is kept with its outputs."""

import ast
import pathlib
import re

import nbclient
import nbformat
import pytest

from smpc import report
from tests import programs

ROOT = pathlib.Path(__file__).resolve().parents[1]

# The tutorial's cells 6 to 8, without comments and the two variables that it does not use.
TUTORIAL = r"""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 128)
        self.fc2 = nn.Linear(128, 64)
        self.fc3 = nn.Linear(64, 10)

    def forward(self, x):
        x = x.view(-1, 28 * 28)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = self.fc3(x)
        return x

def train(args, model, private_train_loader, optimizer, epoch):
    model.train()
    for batch_idx, (data, target) in enumerate(private_train_loader):
        start_time = time.time()
        optimizer.zero_grad()
        output = model(data)
        batch_size = output.shape[0]
        loss = ((output - target)**2).sum().refresh()/batch_size
        loss.backward()
        optimizer.step()
        if batch_idx % args.log_interval == 0:
            loss = loss.get().float_precision()
            print('Train Epoch: {} [{}/{} ({:.0f}%)]\tLoss: {:.6f}\tTime: {:.3f}s'.format(
                epoch, batch_idx * args.batch_size, len(private_train_loader) * args.batch_size,
                100. * batch_idx / len(private_train_loader), loss.item(),
                time.time() - start_time))

def test(args, model, private_test_loader):
    model.eval()
    correct = 0
    with torch.no_grad():
        for data, target in private_test_loader:
            output = model(data)
            pred = output.argmax(dim=1)
            correct += pred.eq(target.view_as(pred)).sum()
    correct = correct.get().float_precision()
    print('\nTest set: Accuracy: {}/{} ({:.0f}%)\n'.format(
        correct.item(), len(private_test_loader)* args.test_batch_size,
        100. * correct.item() / (len(private_test_loader) * args.test_batch_size)))
"""


def read():
    return nbformat.read(ROOT / "tutorial.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    """What all cells printed and showed, one text."""
    return "".join(
        output.get("text") or output["data"]["text/plain"]
        for cell in code_cells(notebook)
        for output in cell.outputs
    )


def curve(notebook):
    """The correct answers after each epoch; all that the notebook prints is there, and in order."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {output.output_type for cell in cells for output in cell.outputs} == {
        "stream",
        "execute_result",
    }
    assert "stderr" not in {output.get("name") for cell in cells for output in cell.outputs}
    shown = outputs(notebook)
    steps = re.findall(r"Train Epoch: (\d+) \[(\d+)/640 \(\d+%\)\]\tLoss: \d\.\d{6}\t", shown)
    assert steps == [
        (str(epoch), str(done)) for epoch in range(1, 11) for done in range(0, 640, 64)
    ]
    correct = re.findall(r"\nTest set: Accuracy: (\d+)\.0/640", shown)
    assert re.search(r"^this run +(.*)", shown, re.MULTILINE)[1].split() == correct
    for part in ("FixedPrecisionTensor>[AdditiveSharingTensor]", "-> worker2:", "crypto_provider*"):
        assert shown.count(part) == 2, "the chains of fc3.bias and of the first batch"
    return [int(count) for count in correct]


def within_the_band(correct):
    """Whether each epoch's accuracy is within 2.5 points of the published curve."""
    return all(
        abs(ours - theirs) <= 0.025 * 640
        for ours, theirs in zip(correct, report.PUBLISHED, strict=True)
    )


def test_it_runs(tmp_path, monkeypatch):
    """Anew, in a kernel of its own; one run of two has to stay in the band, as in test_smoke.py."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    for name, value in programs.ONE_THREAD.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        notebook = read()
        for cell in code_cells(notebook):
            cell.outputs, cell.execution_count = [], None
        resources = {"metadata": {"path": str(ROOT)}}
        nbclient.NotebookClient(notebook, resources=resources).execute()
        correct = curve(notebook)
        if within_the_band(correct):
            return
    pytest.fail(f"left the band twice: {correct}")


def test_the_saved_outputs():
    """Those of a whole run, with nothing in them of the machine that it was on."""
    notebook = read()
    assert within_the_band(curve(notebook))
    assert notebook.metadata.kernelspec.name == "python3"
    assert not any(cell.metadata for cell in notebook.cells)
    assert not re.search(r"(?<![\w.])/\w", outputs(notebook)), "an absolute path"


def test_it_is_the_tutorial():
    """Net, train and test are the tutorial's, but that test returns what it prints."""
    ours = {
        node.name: node
        for cell in code_cells(read())
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    returned = ours["test"].body.pop()
    assert ast.unparse(returned) == "return correct.item()"
    for node in ast.parse(TUTORIAL).body:
        assert ast.unparse(ours[node.name]) == ast.unparse(node)
