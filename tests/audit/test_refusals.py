"""What the ends say when they refuse something is the same, whatever the secrets are."""

import numpy as np
import pytest

from smpc.audit import refusals
from smpc.semi2k import provider, storage, wire, worker
from smpc.semi2k.session import Session
from smpc.semi2k.wire import Refused
from smpc.semi2k.worker import Worker


def test_nothing_is_found():
    assert refusals.found_in() == []


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """What was said in one session, and what was answered."""
    values = np.random.default_rng().integers(-100, 100, (2, refusals.SIZE))
    return refusals.refusals(tmp_path_factory.mktemp("kept"), values)


def test_every_verb_is_refused_at_every_end(texts):
    """But for a few programs that have no meaning: an end may go on with them, or wait."""
    role = wire.Roster("me", "crypto_provider", ("worker1", "worker2"), ("owners",)).role
    refused = {what for what, text in texts.items() if text is not None}
    for (sender, receiver), verbs in wire.GRAMMAR.items():
        for verb in verbs:
            wrong = [what for what in refused if what.startswith(f"{verb} from ")]
            ends = [what.split(" with more")[0].split() for what in wrong if "with more" in what]
            assert (sender, receiver) in {(role(line[2]), role(line[4])) for line in ends}
    assert texts.keys() - refused == {
        "run of a program on another form at crypto_provider",
        "run of a program for nobody at crypto_provider",
        "run of a program of noise at crypto_provider",
        "run of a program of select at crypto_provider",
        "run of a program of select at worker2",
        "run of a program of reveal at worker2",
    }
    assert len(refused) > 500


def test_all_that_was_said_is_said_again(texts):
    """Of each verb that may pass in a session: a message that was taken, and is not taken twice."""
    again = {what.split()[0] for what in texts if what.endswith(" again")}
    verbs = {verb for verbs in wire.GRAMMAR.values() for verb in verbs}
    assert again == verbs - {"keys", "save", "anew"}


def test_the_errors_that_ends_make(texts):
    """Each of those that a run, a value or a checkpoint may come to."""
    said = {text for text in texts.values() if text is not None}
    for part in (
        *("has had this key already", "was dealt for run", "is dealt no masks", "is there already"),
        *("words came where", "has shared 2 already", "shares what it calls", "out of turn"),
        *("has the fields", "may not say", "malformed or out of range", "this is no message"),
        *("does not store", "has no share of the mask", "keeps no checkpoints", "is damaged"),
        *("holds shares of", "is of another run", "is of another model", "names each value once"),
        *("goes by the SHA-256", "is not known here", "on more or fewer values", "cannot compute"),
        *("for another value", "cannot deal for run", "words are dealt where", "words, and 0 of"),
        *("was not asked for this", "no answer came from", "cannot share items", "does not read"),
        *("reveal shares of different sizes", "keys are for owners", "no owner is called"),
        *("a public value that is called", "No such file", "Not a directory", "once, and not as"),
    ):
        assert any(part in text for text in said), part


# ---- What is broken ------------------------------------------------------------------------------


def test_a_share_in_the_error_of_a_size(monkeypatch):
    def split(flat, shapes):
        try:
            return wire.split(flat, shapes)
        except Refused as error:
            raise Refused(f"{error}: {flat[:1]}") from error

    monkeypatch.setattr(worker, "split", split)
    whats = {line.split(":")[0] for line in refusals.found_in()}
    assert whats == {"input to worker1 of another size", "input to worker2 of another size",
                     "deal_input of another size"}  # fmt: skip


def test_a_malformed_field_that_is_shown(monkeypatch):
    native = wire.read

    def read(message, *roles):
        try:
            return native(message, *roles)
        except Refused as error:
            raise Refused(f"{error}: {message[-4:].hex()}") from error

    monkeypatch.setattr(wire, "read", read)
    assert len(refusals.found_in()) > 100


def test_a_few_bits_of_what_a_worker_holds(monkeypatch):
    """As the length of an error: seven bits of a share."""
    native = Worker._check_ids

    def check_ids(self, ids):
        try:
            native(self, ids)
        except Refused as error:
            dots = "." * int(self.share(min(self.values))[0] % 128)
            raise Refused(f"{error}{dots}") from error

    monkeypatch.setattr(Worker, "_check_ids", check_ids)
    assert [line.split(":")[0] for line in refusals.found_in()] == ["save of what is not stored"]


def test_a_damaged_file_that_is_shown(monkeypatch):
    native = storage.read

    def read(path):
        try:
            return native(path)
        except storage.CheckpointError as error:
            raise storage.CheckpointError(f"{error}: {path.read_bytes()[-40:].hex()}") from error

    monkeypatch.setattr(storage, "read", read)
    found = {line.split(":")[0] for line in refusals.found_in()}
    assert {"load of a file that is damaged", "load of a file that is cut off"} <= found


def test_an_answer_that_is_shown(monkeypatch):
    native = Session.receive

    def receive(self, sender, message):
        try:
            return native(self, sender, message)
        except Refused as error:
            raise Refused(f"{error} {message[-8:]}") from error

    monkeypatch.setattr(Session, "receive", receive)
    found = {line.split(":")[0] for line in refusals.found_in()}
    assert "result that nobody asked for" in found
    assert "a result of another run" in found


def test_a_mask_in_the_provider_s_error(monkeypatch):
    native = provider.Provider._make

    def make(self, address, program, masks):
        try:
            return native(self, address, program, masks)
        except ValueError as error:
            raise ValueError(f"{error} of {masks[0]}") from error

    monkeypatch.setattr(provider.Provider, "_make", make)
    found = {line.split(":")[0] for line in refusals.found_in()}
    assert "run of a program of reshape at crypto_provider" in found
