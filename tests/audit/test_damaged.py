"""Transcripts that are damaged, missing or cannot be written, and arguments that the audit refuses:
one line for the user."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from smpc.audit import PROGRAM
from smpc.audit import __main__ as command
from smpc.audit.transcript import VERSION, Recorder, TranscriptError, values_of


@pytest.fixture
def audit_fails(fails):
    """audit_fails(*arguments) -> the line on stderr of an audit that ends with status 2."""
    return lambda *arguments: fails(PROGRAM, lambda: command.main([*map(str, arguments)]))


@pytest.fixture
def written(recorded, tmp_path):
    """The path of a transcript."""
    recorded()
    return tmp_path / "run.jsonl"


def test_a_partys_view_is_printed(written, capsys):
    command.main(["--transcript", str(written), "--party", "worker1"])
    printed = capsys.readouterr().out
    title, *lines = printed.split("\n\n")[0].splitlines()
    assert title.split()[:4] == ["round", "sender", "receiver", "kind"]
    ends = {tuple(line.split()[1:4]) for line in lines}
    assert ends == {
        ("worker1", "worker1", "drawn"),
        ("crypto_provider", "worker1", "dealt"),
        ("owners", "worker1", "share"),
        ("me", "worker1", "public"),
        ("worker1", "worker2", "masked"),
        ("worker2", "worker1", "masked"),
        ("worker1", "me", "revealed"),
    }
    assert printed.strip().endswith("bytes.")


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-100])


def a_byte_changed(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def directory_changed(offset, value):
    """A byte of the first entry in a zip file's central directory."""

    def changed(path):
        content = bytearray(path.read_bytes())
        start = int.from_bytes(content[-6:-2], "little")
        content[start + offset] = value
        path.write_bytes(content)

    return changed


def header_changed(path):
    path.write_text(path.read_text().replace('"protocol": "semi2k"', '"protocol": "semi3k"', 1))


def not_a_transcript(path):
    path.write_text("<html>404</html>\n")


def binary(path):
    path.write_bytes(bytes(range(256)))


def of_another_version(path):
    header, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps(json.loads(header) | {"version": VERSION + 1}) + "\n" + rest)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, "damaged (wrong SHA-256)"),
        (a_byte_changed, "damaged"),
        (header_changed, "damaged (wrong SHA-256)"),
        (not_a_transcript, "is damaged, or no transcript"),
        (binary, "is damaged, or no transcript"),
        (of_another_version, f"of version {VERSION + 1}, not"),
        (pathlib.Path.unlink, "No such file"),
    ],
)
def test_a_damaged_transcript(written, audit_fails, damage, message):
    damage(written)
    assert message in audit_fails("--transcript", written, "--party", "worker1")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, "is damaged"),
        (a_byte_changed, "is damaged"),
        (not_a_transcript, "is damaged"),
        (directory_changed(8, 1), "is damaged"),  # the flag of what is encrypted
        (directory_changed(10, 14), "is damaged"),  # LZMA
        (directory_changed(10, 99), "is damaged"),  # a method that there is not
        (pathlib.Path.unlink, "is missing"),
    ],
)
def test_damaged_values(written, audit_fails, damage, message):
    damage(values_of(written))
    assert message in audit_fails("--transcript", written, "--party", "worker1")


def test_values_of_another_run(written, audit_fails):
    path = values_of(written)
    with np.load(path) as values:
        arrays = dict(values)
    arrays["sha256"] = np.array("0" * 64)
    np.savez(path.open("wb"), **arrays)
    assert "belongs to another transcript" in audit_fails(
        "--transcript", written, "--party", "worker1"
    )


def test_a_party_that_was_not_there(written, audit_fails):
    assert "no party worker3" in audit_fails("--transcript", written, "--party", "worker3")


def test_arguments_of_the_audit(audit_fails, tmp_path):
    assert "go together" in audit_fails("--party", "worker1")
    assert "unrecognized arguments" in audit_fails("--colour")
    (tmp_path / "file").write_text("")
    assert "--out" in audit_fails("--out", tmp_path / "file")


@pytest.mark.parametrize("path", ["", ".", "folder"])
def test_a_transcript_that_is_a_folder(tmp_path, monkeypatch, path):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TranscriptError, match=r"--transcript (\.|folder): a folder; name a file"):
        Recorder(path, {})
    assert [x.name for x in tmp_path.rglob("*")] == ["folder"]


def test_a_transcript_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    arguments = ["--transcript", tmp_path / "file" / "run.jsonl", "--out", tmp_path]
    script = [sys.executable, "train_encrypted.py", *map(str, arguments)]
    ended = subprocess.run(script, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("train_encrypted.py: error: --transcript")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "run.json").exists()
