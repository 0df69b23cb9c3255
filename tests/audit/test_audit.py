"""The audit itself, in its quick form: `snn` and `fss` give away what they are known to, `semi2k`
nothing."""

import copy
import json
import struct

import numpy as np
import pytest

from smpc.audit import (
    PROGRAM,
    Finding,
    attacks,
    chance,
    checks,
    conduct,
    ideal,
    meaning,
    report,
    simulator,
)
from smpc.audit import __main__ as command
from smpc.audit.ledger import Ledger
from smpc.audit.transcript import WORKERS, Transcript

PRIVATE = "semi2k, private"
STOCK = pytest.param(command.available(), marks=pytest.mark.thorough, id="beside snn and fss")


@pytest.fixture(scope="module", params=[pytest.param((), id="semi2k alone"), STOCK])
def stock(request):
    """Those of syft's own protocols that are audited, too."""
    return request.param


@pytest.fixture(scope="module")
def audited(parties, stock, tmp_path_factory):
    """The `Audit` in its quick form, and the folder with its transcripts."""
    folder = tmp_path_factory.mktemp("audit")
    return command.run_all(True, folder, stock), folder


@pytest.fixture(scope="module")
def results(audited):
    """(run, party, attack, secret) -> `checks.Result`."""
    return {
        (report.run_of(view), view.party, result.attack, result.secret): result
        for view, found in audited[0].rows
        for result in found
    }


def test_stock_leaks_and_semi2k_does_not(stock, audited, results):
    audit, _ = audited
    assert audit.findings == []
    assert audit.tests.count > 100_000
    assert audit.tests.alarms() == []
    succeeded = {key for key, result in results.items() if result.succeeded}
    differences, seed = "differences of what is compared", "masks from the seed"
    of_snn = {
        *(("snn", worker, differences, "hidden values") for worker in WORKERS),
        ("snn", "crypto_provider", "comparison results, up to a flip", "signs"),
    }
    assert succeeded == {
        *(of_snn if stock else ()),
        *((protocol, worker, seed, "images") for protocol in stock for worker in WORKERS),
        *(
            (protocol, "me", "unmasked products", secret)
            for protocol in stock
            for secret in ("images", "labels", "weights")
        ),
    }


def test_every_attack_is_made_on_semi2k(results):
    """Each secret is looked for in each view that has anything; and two have nothing at all: no
    masked value comes to the provider, nor to the orchestrator."""
    made = [{key[1:] for key in results if key[0] == run} for run in ("semi2k", PRIVATE)]
    assert made[0] == made[1] >= {key[1:] for key in results if key[0] == "snn"}
    assert len(made[0]) == 14
    for (protocol, party, *_), result in results.items():
        nothing = party == "crypto_provider" and protocol != "snn"
        nothing = nothing or (party == "me" and protocol.startswith("semi2k"))
        assert (result.guess is None) == nothing
        assert report.recovered(result).endswith(": no value received") == nothing


@pytest.mark.parametrize("stock", [STOCK], indirect=True)
def test_an_attack_that_fails_on_stock_is_a_failure(results):
    found = [results["snn", "me", "unmasked products", s] for s in ("images", "labels")]
    assert checks.shortfalls("snn", "me", found) == [
        ("attacks", "snn: me is known to get at the weights, and did not")
    ]
    worse = found[0]._replace(recovered=0.5)
    assert len(checks.shortfalls("snn", "me", [worse, found[1]])) == 2


def test_what_goes_to_the_wrong_party_is_a_failure(audited):
    transcript = Transcript(audited[-1] / "semi2k.jsonl")
    assert conduct.trespasses(transcript) == []
    share = next(e for e in transcript.entries if (e.kind, e.receiver) == ("share", "worker2"))
    transcript.entries.append(share._replace(sender="worker1"))
    transcript.entries.append(share._replace(receiver="crypto_provider", kind="opened"))
    transcript.entries.append(share._replace(sender="worker2", receiver="me", kind="masked"))
    transcript.entries.append(share._replace(sender="worker2", receiver="worker2", kind="masked"))
    assert conduct.trespasses(transcript) == [
        "owners sends crypto_provider what is opened",
        "worker1 sends worker2 what is share",
        "worker2 sends me what is masked",
        "worker2 sends worker2 what is masked",
    ]


@pytest.fixture(scope="module")
def followed(audited):
    """The transcript of semi2k's run, and its `Ledger`: a loss is revealed, then a count."""
    transcript = Transcript(audited[-1] / "semi2k.jsonl")
    return transcript, Ledger(transcript)


def test_what_is_revealed_is_the_loss_and_the_count(followed):
    transcript, ledger = followed
    assert meaning.found_in(ledger, transcript) == []
    assert meaning.promised(transcript) == sum(run.revealed.size for run in ledger.runs) == 2


@pytest.mark.parametrize("run", [0, 1])
@pytest.mark.parametrize("more", [1000, -1000, 1 << 20, 1 << 63])
def test_another_number_than_the_loss_or_the_count(followed, run, more):
    """One that is in place of it, or is added to it, be it beyond all digits that it has."""
    transcript, ledger = copy.copy(followed)
    changed = copy.copy(ledger)
    told = ledger.runs[run].revealed + np.uint64(more % 2**64)
    changed.runs = [*ledger.runs]
    changed.runs[run] = ledger.runs[run]._replace(revealed=told)
    ((check, text),) = meaning.found_in(changed, transcript)
    assert check == "meaning"
    assert text.startswith(f"run {run} reveals ")


def test_more_numbers_than_the_loss_and_the_count(followed):
    transcript, ledger = followed
    changed = copy.copy(ledger)
    changed.runs = [*ledger.runs, ledger.runs[0]]
    assert ("meaning", "3 numbers are revealed, not 2") in meaning.found_in(changed, transcript)
    weights = next(x for x in ledger.runs[0].inputs.values() if x.shape == (10, 64))
    changed.runs = [*ledger.runs, ledger.runs[0]._replace(inputs={}, revealed=weights.ravel())]
    found = meaning.found_in(changed, transcript)
    assert ("meaning", "642 numbers are revealed, not 2") in found


def test_the_range_of_a_loss_is_narrow(followed):
    """What rounding may move it by is a hundredth, and not what hides a digit of anything else."""
    transcript, ledger = followed
    replay = meaning.Replay(ledger, transcript.arguments)
    replay._follow(ledger.runs[0])
    least, most = replay._loss(replay._batches(ledger.runs[0]))
    assert 0 < most - least < 30


def test_numpys_generator_is_torchs():
    """What the attack with the seed rests on."""
    import torch

    state = torch.get_rng_state()
    torch.manual_seed(7)
    drawn = torch.empty(1000, dtype=torch.int64).random_(-(2**63), 2**63 - 1)
    torch.set_rng_state(state)
    seeded = attacks.generator(7)[0:2000:2] - np.uint64(2**63)
    assert np.array_equal(seeded, drawn.numpy().view(np.uint64))


def test_table_record_and_picture(stock, audited):
    audit, _ = audited
    lines = report.table(audit.rows).split("\n")
    assert len(lines) == 2 + 4 * len((*stock, "semi2k", PRIVATE))
    if stock:
        assert "| snn | orchestrator |" in lines[2]
        assert f"images: {8 * 784:,} of {8 * 784:,} pixels right" in lines[2]
    for run in ("semi2k", PRIVATE):  # a loss, or how many layers are too large; and a count
        orchestrator = next(x for x in lines if f"{run} | orchestrator" in x)
        assert "revealed 32 B | 0 B |" in orchestrator
        assert "not recovered; images: no value received" in orchestrator
    assert "signs: no value received" in next(x for x in lines if "semi2k | crypto provider" in x)
    checked = simulator.check(ideal.Mask(), "worker1")
    record = json.loads(json.dumps(report.as_json(audit._replace(simulated=[checked]))))
    assert record["findings"] == []
    assert record["semi2k"]["simulated"][0]["passed"]
    assert record["semi2k"]["least"] > record["semi2k"]["alarm_below"]
    received = {
        row["party"]: row["saw"]["received"]
        for row in record["rows"]
        if row["protocol"] == "semi2k"
    }
    runs = received["me"]["messages"] // 2  # made anew or not, each of two workers answers
    assert received["crypto_provider"]["messages"] == 1 + 10 + runs, "keys; inputs' names; programs"
    assert received["crypto_provider"]["arrays"].keys() == {"public"}
    assert received["me"]["arrays"].keys() == {"revealed"}
    png = report.picture(audit.truth, audit.rows)
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    assert width >= 1000
    assert height >= 500


def test_privacy_shows_no_party_more(audited):
    rows = audited[0].rows
    assert sum(view.is_private for view, _ in rows) == 4
    assert command.sees_more(rows) == []
    (view, results) = next(row for row in rows if row[0].is_private and row[0].party == "me")
    for kind in ("masked", "revealed"):
        more = copy.copy(view)
        known = next(e for e in view.entries if e.kind == "revealed")
        more.entries = [*view.entries, known._replace(kind=kind)]
        changed = [(more if row[0] is view else row[0], results) for row in rows]
        assert command.sees_more(changed) == [("messages", f"me sees more with privacy: {kind}")]


def test_what_a_private_step_reveals(audited):
    """How many layers are beyond their bound, which is none; any other number is found."""
    transcript = Transcript(audited[-1] / "private.jsonl")
    ledger = Ledger(transcript)
    assert meaning.found_in(ledger, transcript) == []
    assert ledger.runs[0].revealed.tolist() == [0]
    assert [run.revealed.size for run in ledger.runs] == [1, 1], "and a count"
    for more in (1, 1000, 1 << 40):
        changed = copy.copy(ledger)
        told = ledger.runs[0].revealed + np.uint64(more)
        changed.runs = [ledger.runs[0]._replace(revealed=told), *ledger.runs[1:]]
        assert [finding.check for finding in meaning.found_in(changed, transcript)] == ["meaning"]
    replay = meaning.Replay(ledger, transcript.arguments)
    replay._follow(ledger.runs[0])
    replay.parameters[2] = replay.parameters[2] * 30
    assert replay._beyond([]) == (1000, 1000)


def test_the_command(audited, monkeypatch, tmp_path, capsys):
    """Prints the table, writes both files, and ends with 1 if anything failed."""
    outcome = [audited[0]]
    monkeypatch.setattr(command, "run_all", lambda quick, folder, stock: outcome[0])
    with pytest.raises(SystemExit) as ended:
        command.main(["--out", str(tmp_path)])
    assert ended.value.code == 0
    printed = capsys.readouterr()
    assert report.table(audited[0].rows) in printed.out
    assert printed.err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.json", "audit.png"]
    outcome[0] = audited[0]._replace(findings=[Finding("openings", "opened twice")] * 2)
    with pytest.raises(SystemExit) as ended:
        command.main(["--out", str(tmp_path)])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "FAILED openings: opened twice\n"


def test_a_recorded_run_is_audited(stock, audited, capsys, fails):
    """As it is in the audit: the same attacks recover as much, and nothing is found."""
    recorded = audited[-1] / "semi2k.jsonl"
    with pytest.raises(SystemExit) as ended:
        command.main([str(recorded)])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.err) == (0, "")
    rows = [row for row in audited[0].rows if report.run_of(row[0]) == "semi2k"]
    assert len(rows) == 4
    assert printed.out.startswith(report.table(rows) + "\n")
    for protocol in stock:
        line = fails(
            PROGRAM, lambda path=audited[-1] / f"{protocol}.jsonl": command.main([str(path)])
        )
        assert line.endswith(f"is of {protocol}, and the rules are those of semi2k\n")


# ---- chance


@pytest.fixture
def words():
    """Uniform words: uint64 (20000,)."""
    return np.frombuffer(np.random.default_rng(0).bytes(160_000), dtype=np.uint64)


def test_uniform_words_raise_no_alarm(words):
    one, other = words[:10_000], words[10_000:]
    assert chance.uniform(words).min() > 1e-5
    assert chance.bits_agree(one, other).min() > 1e-5
    assert chance.near(one - other) == 1
    assert chance.any_two_near(words) == 1


def test_bits_are_counted_lowest_first(words):
    bits = np.unpackbits(words.view(np.uint8), bitorder="little").reshape(-1, 64)
    assert np.array_equal(chance.ones(words), bits.sum(axis=0))


def test_probabilities_are_exact():
    assert chance.two_sided(0, 10) == pytest.approx(2 / 2**10)
    assert chance.two_sided(5, 10) == 1
    assert chance.two_sided(10, 10) == pytest.approx(2 / 2**10)
    near = np.array([1, 2**63], dtype=np.uint64)
    each = (2 * chance.NEAR + 1) / 2**64
    assert chance.near(near) == pytest.approx(1 - (1 - each) ** 2)
    twice = np.array([7, 7, 2**40], dtype=np.uint64)
    assert chance.any_two_near(twice, within=0) == pytest.approx(4.5 / 2**64)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w & ~np.uint64(1 << 17),  # a bit that is never set
        lambda w: w // np.uint64(3),  # less than the whole ring
        lambda w: w & ~np.uint64(2) | (w & np.uint64(1)) << np.uint64(1),  # two bits alike
        lambda w: (w >> np.uint64(2)) + (w[::-1] >> np.uint64(2)) + np.uint64(2**62),
    ],
)
def test_words_that_are_not_uniform_are_found(words, change):
    assert chance.uniform(change(words)).min() < 1e-20


def test_the_level_is_shared_by_all_probabilities(monkeypatch):
    tests = chance.Tests()
    tests.add("chance: one", tests.alarm_below)
    assert tests.alarms() == []
    tests.add("chance: another: of it", tests.alarm_below / 2)
    assert tests.alarms() == [("chance: another: of it", tests.alarm_below / 2)]
    assert tests.findings() == [("chance", f"another: of it: p = {tests.alarm_below / 2:.1e}")]
    monkeypatch.setattr(chance, "MOST_TESTS", 1000)
    with pytest.raises(RuntimeError, match="no more tests"):
        tests.add("many", np.ones(999))
