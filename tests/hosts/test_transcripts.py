"""What each party records on its own host, put together: all of it; audited as a simulation is."""

import contextlib
import json
import os
import stat
import subprocess
import sys

import msgpack
import numpy as np
import pytest
from cryptography import x509

from smpc.audit import PROGRAM as AUDIT
from smpc.audit import __main__ as audit
from smpc.audit import chance, examine, meaning
from smpc.audit.ledger import Ledger
from smpc.audit.merged import Merged
from smpc.audit.openings import Follower, openings
from smpc.audit.transcript import Recorder, Transcript, TranscriptError, values_of
from smpc.hosts import PROGRAM, certificates, channels
from smpc.hosts.__main__ import main
from smpc.hosts.loopback import ONE_THREAD, PROVIDER, REPOSITORY, SERVER, Loopback
from smpc.semi2k import storage
from smpc.semi2k.network import KINDS, NetworkError
from smpc.semi2k.wire import pack, unpack, words
from tests import records
from tests.hosts import broken
from tests.hosts.conftest import SERVING, STEPS, TIME_LIMIT, Training
from tests.hosts.test_refused import Line

ITEMS = ("--n-train-items", 64, "--n-test-items", 64, "--epochs", 1)


def files_of(folder):
    """The transcripts in a folder, name of the host -> path."""
    return {path.stem.split("-", 1)[1]: path for path in sorted(folder.glob("*.jsonl"))}


def seen_by(paths):
    """Name of a host -> all words in its transcript, uint64 (n,), in order of size."""
    seen = {}
    for name, path in paths.items():
        with np.load(values_of(path)) as values:
            seen[name] = np.sort(values["uint64"])
    return seen


def among(words_, seen):
    """Which of some words are among others, that are sorted (`np.isin` sorts them each time)."""
    assert words_.dtype == seen.dtype == np.uint64
    at = np.searchsorted(seen, words_).clip(max=len(seen) - 1)
    return seen[at] == words_


# ---- A training, as a user records it ------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The `Loopback` of a training of 64 items, recorded and over; name of a host -> its file."""
    folder = tmp_path_factory.mktemp("trained")
    hosts = Loopback(folder, n_train=64, n_test=64)
    hosts.prepare()
    hosts.write_plan(*ITEMS, "--save-model", folder / "model.pt")
    with hosts.serving("--plan", hosts.plan, "--transcript", folder / "transcripts"):
        hosts.script(
            *("--plan", hosts.plan, "--out", folder / "out"),
            *("--transcript", folder / "server.jsonl", "--save-model", folder / "model.pt"),
        )
    return hosts, {SERVER: folder / "server.jsonl", **files_of(folder / "transcripts")}


@pytest.fixture(scope="module")
def merged(trained):
    """All of it, put together."""
    return Merged([*trained[1].values()])


def test_the_audit_finds_nothing(trained, capsys):
    _, paths = trained
    assert set(paths) == {"alice", "bob", PROVIDER, SERVER}
    with pytest.raises(SystemExit) as ended:
        audit.main([*map(str, paths.values())])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.err) == (0, "")
    rows = [line for line in printed.out.splitlines() if line.startswith("| semi2k")]
    assert [row.split(" | ")[1] for row in rows] == [SERVER, "alice", "bob", PROVIDER]
    for row in rows[1:3]:
        assert "of 25,088 pixels right" in row and "not recovered" in row
    assert "no value received" in rows[0] and "no value received" in rows[3]


def test_nothing_is_missing(trained, merged):
    """What each host's counters say has left it is in its file, to the byte, and in the file of
    who has heard it."""
    hosts, _ = trained
    assert merged.contradictions() == []
    roster, sent = merged.roster, {}
    for party in merged.parties:
        for entry, _ in merged.view(party).messages(sender=party):
            host = party.removesuffix("-data")
            if entry.receiver.removesuffix("-data") != host:
                kind = KINDS[roster.role(party), roster.role(entry.receiver)]
                of_host = sent.setdefault(host, {})
                of_host[kind] = of_host.get(kind, 0) + entry.bytes
    for name in ("alice", "bob", PROVIDER):
        *_, last = map(json.loads, (hosts.folder / name / "journal.jsonl").read_text().splitlines())
        assert last["what"] == "ended"
        assert last["sent"] == sent[name]
    record = records.read(hosts.folder / "out")
    opened = {}
    for worker in roster.workers:
        for _, fields in merged.view(worker).messages(sender=worker, name="open"):
            opened[fields["run"]] = opened.get(fields["run"], 0) + 1
    assert record["counters"]["training step"]["messages"]["opening"] in opened.values()
    assert record["counters"]["test pass"]["messages"]["opening"] in opened.values()
    assert len(opened) >= record["runs"]["all"] == 3


def test_what_is_not_heard_is_found(trained):
    one_less = Merged([*trained[1].values()])
    heard = one_less._of["bob"].entries
    heard.remove(next(e for e in heard if (e.name, e.sender) == ("open", "alice")))
    assert one_less.contradictions() == ["bob has heard something else than alice has said to it"]


def test_a_worker_does_nothing_that_does_not_follow_from_its_view(merged):
    for worker in merged.roster.workers:
        view = merged.view(worker)
        answers = [(to, unpack(message)) for to, message in Follower(view).answers]
        said = [(entry.receiver, fields) for entry, fields in view.messages(sender=worker)]
        assert len(answers) > 50
        assert answers == said


def test_what_is_revealed_is_what_was_promised(merged):
    """Two losses, a count, and the weights."""
    ledger = Ledger(merged)
    assert meaning.promised(merged) == sum(run.revealed.size for run in ledger.runs) == 3 + 109_386
    assert meaning.found_in(ledger, merged) == []


def test_each_has_its_own_view_alone(trained, merged):
    """What others hold is in no file: keys, an owner's masks and a worker's shares in that host's
    alone, and the provider's; what is masked, in no file of the provider's or the server's."""
    hosts, paths = trained
    seen = seen_by(paths)
    for name in ("alice", "bob"):
        views = [merged.view(party) for party in (name, f"{name}-data")]
        keys = [view.value(e) for view in views for e in view.arrays("dealt", name="key")]
        masks = [views[1].value(entry) for entry in views[1].arrays("drawn")]
        saved = (hosts.folder / name / "checkpoint").glob("*/*.shares")
        last = max(saved, key=lambda path: int(path.stem))  # those before any step are public
        shares = words(storage.read(last)["shares"])
        assert (len(keys), len(masks), shares.size) == (2, 4, 109_386)
        for other in seen.keys() - {name}:
            assert not among(shares, seen[other]).any()
        for other in seen.keys() - {name, PROVIDER}:
            assert not among(np.concatenate([*keys, *masks]), seen[other]).any()
        masked = np.concatenate([views[0].value(e) for e in views[0].arrays("share")])
        assert among(masked, seen["alice"]).all() and among(masked, seen["bob"]).all()
        for other in (PROVIDER, SERVER):
            assert not among(masked, seen[other]).any()
    for party, kinds in ((PROVIDER, {"public"}), (SERVER, {"revealed"})):
        received = [e for e in merged.view(party).arrays() if e.receiver == party != e.sender]
        assert {entry.kind for entry in received} == kinds
    for name, path in paths.items():
        transcript, own = Transcript(path), {name, f"{name}-data"}
        assert {*transcript.parties} <= own
        assert all({entry.sender, entry.receiver} & own for entry in transcript.entries)
        assert [stat.S_IMODE(p.stat().st_mode) for p in (path, values_of(path))] == [0o600] * 2


def test_a_partys_view_is_printed(trained, capsys):
    """Of the file of its host; no other's."""
    _, paths = trained
    audit.main(["--transcript", str(paths["bob"]), "--party", "bob-data"])
    lines = capsys.readouterr().out.splitlines()
    ends = {tuple(line.split()[1:4]) for line in lines[1:-2]}
    assert ends == {
        (PROVIDER, "bob-data", "dealt"),
        ("bob-data", "bob-data", "drawn"),
        ("bob-data", "alice", "share"),
        ("bob-data", "bob", "share"),
    }
    with pytest.raises(TranscriptError, match="no party alice in it, but bob, bob-data"):
        Transcript(paths["bob"]).view("alice")


# ---- Smaller sessions, of processes that are changed at their start ------------------------------


class Processes:
    """The parties of `tests.hosts.conftest`, a process each, and the server here.

    Args:
        planned: a `Parties`, whose plan and folders they have.
        change: the name of a function of `broken` that each calls at its start, or None.
    """

    def __init__(self, planned, change):
        self.planned, self.folder = planned, planned.folder / "recorded"
        for journal in planned.journals.values():
            journal.close()
        self.folder.mkdir()
        start = planned.folder / "start"
        start.mkdir()
        code = f"from tests.hosts import broken\nbroken.{change}()\n" if change else ""
        (start / "sitecustomize.py").write_text(code)
        self._environment = {"PYTHONPATH": os.pathsep.join((str(start), str(REPOSITORY)))}
        self._parties, self._plan = planned.folder / "parties.toml", planned.folder / "plan.json"
        self._parties.write_text(
            "\n".join(map(self._block, planned.configuration.parties.values()))
        )
        planned.plan.save(self._plan)

    @staticmethod
    def _block(party):
        table = {"name": party.name, "role": party.role, "train_items": party.train_items}
        if party.address:
            table["address"] = party.address
        if party.role != "worker":
            del table["train_items"]
        return certificates.block(table, x509.load_pem_x509_certificate(party.certificate))

    def _start(self, name):
        command = [sys.executable, "-m", "smpc.hosts", "serve", name]
        command += ["--parties", self._parties, "--plan", self._plan, "--transcript", self.folder]
        if name in self.planned.hosts.parts:
            command += ["--data", self.planned.hosts.folder / f"part-{name}"]
        return subprocess.Popen(
            [*map(str, command)], cwd=REPOSITORY, env=os.environ | ONE_THREAD | self._environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @contextlib.contextmanager
    def serving(self):
        """All of them."""
        running = [*map(self._start, SERVING)]
        try:
            for process in running:
                assert process.stdout.readline().startswith("serving"), process.communicate()
            yield
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.communicate(timeout=TIME_LIMIT)

    def record(self, name):
        """Train in a session, which the server records, too, under this name; the losses."""
        with recording(self.folder / f"{name}-server.jsonl"), self.planned.connected() as session:
            return train(session)


@contextlib.contextmanager
def recording(path):
    """Record what the server's ends here see, or all ends, if they are here."""
    recorder = Recorder(path, {"protocol": "semi2k"})
    recorder.start()
    try:
        yield
    finally:
        recorder.stop()
    recorder.save()


def train(session):
    training = Training(session)
    return [training.step(training.batch(owner)).item() for owner in STEPS]


def opened_in(transcript, worker):
    """All that was opened to a worker: (run, attempt, instruction, step) -> value, and its mask."""
    return {
        (*(o.address or (-1, -1)), o.number, o.op, o.step): (o.value.tobytes(), o.mask.tobytes())
        for o in openings(transcript.view(worker))
    }


def found_in(transcript):
    """The names of the checks that find something."""
    tests = chance.Tests()
    ((_, found),) = examine.examined([transcript], tests)
    return {finding.check for finding in (*found, *tests.findings())}


def test_the_same_is_opened_as_in_the_simulation(parties, planned, monkeypatch, tmp_path):
    broken.hold_the_keys(monkeypatch.setattr)
    with recording(tmp_path / "simulated.jsonl"):
        losses = train(planned.in_memory())
    simulated = Merged([tmp_path / "simulated.jsonl"])
    processes = Processes(planned, "hold_the_keys")
    with processes.serving():
        assert processes.record("x") == losses
    on_hosts = Merged([*processes.folder.glob("*.jsonl")])
    for worker in ("alice", "bob"):
        opened = opened_in(on_hosts, worker)
        assert opened == opened_in(simulated, worker)
        assert {key[3] for key in opened} == {"input", "mask", "truncate"}
    for transcript in (simulated, on_hosts):
        assert transcript.contradictions() == []
        assert found_in(transcript) == {"keys"}, "which were held"


def test_one_mask_for_a_whole_tensor_raises_the_alarm(parties, planned):
    processes = Processes(planned, "truncate_under_one_mask")
    with processes.serving():
        processes.record("x")
    found = found_in(Merged([*processes.folder.glob("*.jsonl")]))
    assert found >= {"openings", "chance"}


# ---- What cannot be put together, or recorded ----------------------------------------------------


@pytest.fixture
def refuses(fails):
    """refuses(paths) -> the one line with which the audit ends."""
    return lambda paths: fails(AUDIT, lambda: audit.main([*map(str, paths)]))


def test_transcripts_that_do_not_go_together(trained, refuses, tmp_path):
    _, paths = trained
    alice, bob, server = (paths[name] for name in ("alice", "bob", SERVER))
    assert refuses([bob, alice, server]).endswith(
        "error: missing: a transcript with what crypto-provider saw\n"
    )
    assert "what alice, alice-data, bob, bob-data, crypto-provider saw" in refuses([server])
    assert f"{alice} has what alice saw, which {alice} has, too" in refuses(
        [alice, *paths.values()]
    )
    copy = tmp_path / "copy.jsonl"
    text = bob.read_text()
    copy.write_text(text)
    values_of(copy).write_bytes(values_of(bob).read_bytes())
    assert f"{copy} has what bob saw, which {bob} has, too" in refuses([*paths.values(), copy])
    copy.write_text(text[:-100])
    assert f"{copy} is damaged" in refuses([alice, copy])
    assert f"{tmp_path}/none: No such file" in refuses([tmp_path / "none"])
    assert "give one of them" in refuses([alice, "--transcript", alice, "--party", "alice"])


@pytest.fixture
def recorded(parties, planned, tmp_path):
    """`Parties` that serve from this process, of which carol, who has nothing to say, records; and
    the folder."""
    planned.running["carol"]._transcripts = folder = tmp_path / "recorded"
    folder.mkdir()
    planned.serve()
    return planned, folder


def test_sessions_are_kept_apart(recorded, refuses):
    parties, folder = recorded
    for _ in range(2):
        parties.check()
    one, other = folder.glob("*.jsonl")
    assert one.stem.endswith("-carol") and Transcript(one).session in one.stem
    assert f"{other} is of another session than {one}" in refuses([one, other])


def test_a_session_that_is_cut_off_says_so(recorded, refuses, capsys):
    parties, folder = recorded
    with pytest.raises(KeyboardInterrupt), parties.connected():
        raise KeyboardInterrupt
    (path,) = folder.glob("*.jsonl")
    assert Transcript(path).cut_off == "the server is gone"
    capsys.readouterr()
    assert "is of a session that was cut off: the server is gone" in refuses([path])
    parties.check()


def test_a_transcript_is_never_written_over(recorded, monkeypatch):
    """A server that opens a session under the number of an earlier one is refused."""
    parties, folder = recorded
    monkeypatch.setattr("secrets.token_hex", lambda n: "a" * 32)
    parties.check()
    (path,) = folder.glob("*.jsonl")
    before = path.read_bytes()
    with pytest.raises(NetworkError, match=f"refuses: --transcript {path}: is there already"):
        parties.call_all()
    parties.wait_until_free()
    assert path.read_bytes() == before
    monkeypatch.undo()
    parties.running["carol"]._transcripts = None
    parties.check()


@pytest.mark.parametrize("id", ["", "../../etc", "a b", "a" * 65])
def test_a_session_whose_number_could_be_a_path_is_refused(recorded, monkeypatch, id):
    parties, _ = recorded
    monkeypatch.setattr("secrets.token_hex", lambda n: id)
    with pytest.raises(NetworkError, match="the number of a session is of letters"):
        parties.call_all()
    monkeypatch.undo()
    parties.check()


@pytest.mark.parametrize(
    "message",
    [
        msgpack.packb({"do": "share", "x": msgpack.ExtType(5, b"a")}),
        msgpack.packb({"do": "revealed", "zz": b"1"}),
        msgpack.packb({"ids": 1}),
        msgpack.packb([1]),
        b"\xc1",
    ],
)
def test_what_is_refused_is_refused_likewise_and_noted_as_it_is(recorded, message):
    parties, folder = recorded
    with Line(parties, "carol") as line:
        key = channels.message_frame("dealer", "carol-data", pack("key", key=bytes(32)))
        line.say("dealer", key)
        line.say("server", channels.message_frame("server", "carol-data", message))
        assert line.error().startswith("carol: ")
    assert len(parties.entries("carol", "refused")) == 1
    (path,) = folder.glob("*.jsonl")
    transcript = Transcript(path)
    assert {entry.name for entry in transcript.entries} == {"key", "malformed"}
    view = transcript.view("carol-data")
    assert [view.value(entry).tobytes() for entry in view.arrays("value")] == [message]
    path.unlink()
    values_of(path).unlink()
    with Line(parties, "carol"):
        pass  # a session in which nothing is said
    assert Transcript(path).parties == ["carol-data"]
    parties.check()


def test_a_transcript_that_cannot_be_written_at_the_end(recorded, capfd):
    parties, folder = recorded
    with parties.connected() as session:
        Training(session)
        folder.rmdir()
        folder.write_text("")
    lines = capfd.readouterr().err.splitlines()
    # another may be told before it has ended its own session in order
    (line,) = (line for line in lines if "the session has ended: " not in line)
    assert line.startswith(f"{PROGRAM}: error: --transcript {folder}/")
    assert line.endswith("Not a directory")
    (entry,) = parties.entries("carol", "error")
    assert line.endswith(entry["reason"])
    with pytest.raises(NetworkError, match=r"refuses: --transcript .*: Not a directory"):
        parties.call_all()
    folder.unlink()
    parties.check()
    assert len([*folder.glob("*.jsonl")]) == 1


def test_a_folder_that_cannot_be_written_is_found_at_the_start(trained, fails, tmp_path):
    hosts, _ = trained
    (tmp_path / "file").write_text("")
    options = ["serve", "alice", "--parties", hosts.parties, "--plan", hosts.plan]
    options += ["--data", hosts.folder / "parts" / "alice", "--transcript", tmp_path / "file"]
    line = fails(PROGRAM, lambda: main([*map(str, options)]))
    assert f"--transcript {tmp_path}/file: File exists" in line
