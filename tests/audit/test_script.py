"""That the script's trainings are recorded for the audit, with the weights and a resume."""

import hashlib
import itertools

import pytest

from smpc.audit import PROGRAM, left, scenarios
from tests import programs
from tests.audit.test_scenarios import instructions, kept, results, written
from tests.audit.test_scenarios import programs as programs_of


@pytest.fixture(scope="module")
def trained_by_script(tmp_path_factory):
    """The `scenarios.Run`s of the script's trainings."""
    programs.server()  # of all its threads, before they begin
    return scenarios.script(tmp_path_factory.mktemp("script"))


@pytest.mark.thorough
def test_the_script_trains_and_goes_on_from_its_checkpoint(trained_by_script):
    (before, after), *_ = [[run.transcript for run in runs] for runs in trained_by_script]
    losses_and_counts, weights = 2 * (3 + 1), 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    revealed = results(before)
    assert sum(result.size for result in revealed) == losses_and_counts + weights
    assert sum(result.size for result in results(after)) == 3 + 1 + weights
    assert all(result.size == 1 and result > 0 for result in revealed[:3])
    files = written(before)
    assert {sender for sender, name in files if name == "progress"} == {"me"}
    assert kept(after) == {
        (worker, "6.shares"): hashlib.sha256(files[worker, "6.shares"]).hexdigest()
        for worker in before.roster.workers
    }


@pytest.mark.thorough
def test_the_script_trains_exactly(trained_by_script):
    _, (run,), _ = trained_by_script
    exact = run.transcript
    assert len(exact.roster.workers) == 3
    assert not instructions(exact, "truncate")
    by_run = [{i.op for i in program.instructions} for program in programs_of(exact)]
    assert ["above_zero" in ops for ops in by_run] == [False, False, True]


@pytest.mark.thorough
def test_the_script_trains_privately(trained_by_script):
    *_, (run,) = trained_by_script
    noises = instructions(run.transcript, "noise")
    assert {i.params[3] for i in noises} == set(range(6)) and all(i.params[2] for i in noises)
    revealed = [result.tolist() for result in results(run.transcript)]
    assert [revealed[i] for i in (0, 1, 3, 4)] == [[0]] * 4, "how many layers are too large"
    assert len(revealed) == 2 * 3 + 6, "a count after each epoch, and the weights"
    assert "Loss" not in run.stdout


@pytest.mark.thorough
def test_a_journal_that_says_more(trained_by_script):
    *_, (run,) = trained_by_script
    arguments = run.transcript.arguments
    journal = left.journals(arguments)[1]
    text = journal.read_text()
    for wrong in (text + text, text[:-1], text.replace(" 1,", " 3,"), "x" + text):
        journal.write_text(wrong)
        assert [finding.check for finding in run.left()] == ["outputs"]
    journal.write_text(text)
    assert run.left() == []


@pytest.mark.thorough
def test_what_the_script_leaves(trained_by_script):
    """Nothing but what it was to; and what it prints is what is looked at."""
    for run in itertools.chain.from_iterable(trained_by_script):
        assert run.left() == []
        findings = run._replace(stdout=run.stdout + "1.5\n").left()
        assert [finding.check for finding in findings] == ["outputs"]


def test_a_script_that_fails(fails, tmp_path):
    line = fails(PROGRAM, lambda: scenarios.run_script(tmp_path / "x.jsonl", "--seed", -1))
    assert line.endswith(
        "x could not be run: train_encrypted.py: error: --seed -1: use 0 to 2^63 - 1\n"
    )
