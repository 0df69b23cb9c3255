"""That every word of a run is accounted for: nothing is found in runs that are not broken, and
whatever is changed in what was recorded of one, by a bit, is found by the check that it is for."""

import copy

import msgpack
import numpy as np
import pytest

from smpc.audit import chance, reference_noise, scenarios, streams
from smpc.audit.examine import examined
from smpc.audit.ledger import Ledger
from smpc.audit.openings import openings, unknown_to
from smpc.audit.scenarios import SCENARIOS
from smpc.audit.transcript import PROVIDER, WORKERS
from smpc.semi2k.randomness import Stream

# The others are in the audit of `test_audit`, and the large one in `test_scenarios`.
QUICK = scenarios.training, scenarios.new_keys


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(scenario, marks=[pytest.mark.thorough] * (scenario not in QUICK))
        for scenario in SCENARIOS.values()
        if scenario is not scenarios.many
    ],
)
def test_nothing_is_found_in_what_is_not_broken(scenario, tmp_path):
    tests = chance.Tests()
    for ledger, found in examined(scenario(tmp_path), tests):
        assert found == []
        assert ledger.runs
    assert tests.alarms() == []


def test_streams_are_those_of_the_parties():
    """Beyond a block of what is drawn at once, too."""
    n = 2 * streams.AT_ONCE + 3
    for purpose, address in (("runs", (2**40, 7)), ("inputs of owners", (3, 0))):
        drawn = Stream(bytes(range(32)), purpose).words(address, n)
        assert np.array_equal(streams.words(bytes(range(32)), purpose, address, n), drawn)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The transcripts of two sessions, of which the second goes on from the first's checkpoint."""
    return scenarios.checkpoint(tmp_path_factory.mktemp("recorded"))


def found_in(*transcripts):
    """The names of the checks that find something for certain."""
    written, found = {}, []
    for transcript in transcripts:
        ledger = Ledger(transcript, written)
        written, found = ledger.written, found + ledger.findings
    return {finding.check for finding in found}


def with_entries(transcript, entries):
    changed, numbers = copy.copy(transcript), {e.number: i for i, e in enumerate(entries)}
    changed.entries = [
        entry._replace(number=number, message=numbers.get(entry.message))
        for number, entry in enumerate(entries)
    ]
    return changed


def with_value(transcript, entry, position, bit):
    """The same, but for a bit of an element of an array."""
    changed, values = copy.copy(transcript), transcript._values[entry.dtype].copy()
    values[entry.start + position] ^= values.dtype.type(1 << bit)
    changed._values = transcript._values | {entry.dtype: values}
    return changed


def with_message(transcript, message, **fields):
    """The same, but that one message has these fields, and is as long as it is then."""
    new = message.fields | fields
    sizes = [
        len(msgpack.packb({k: v for k, v in f.items() if not isinstance(v, dict)}))
        for f in (new, message.fields)
    ]
    replaced = message._replace(fields=new, bytes=message.bytes + sizes[0] - sizes[1])
    return with_entries(transcript, [replaced if e is message else e for e in transcript.entries])


def messages(transcript, name, sender=None):
    """Those of a verb."""
    return [
        entry
        for entry in transcript.entries
        if (entry.kind, entry.name) == ("message", name) and sender in (None, entry.sender)
    ]


@pytest.mark.parametrize("bit", [0, 63])
@pytest.mark.parametrize(
    ("kind", "name", "check"),
    [
        ("masked", "words", "openings"),
        ("masked", "bits", "openings"),
        ("dealt", "corrections", "dealing"),
        ("revealed", "revealed", "results"),
        ("drawn", "words", "streams"),
        ("share", "delta", "openings"),
    ],
)
def test_one_bit_of_what_is_said_or_drawn(recorded, kind, name, check, bit):
    """Of the first array, of one in the middle and of the last; at its last element."""
    arrays = [
        e for e in recorded[0].entries if (e.kind, e.name) == (kind, name) and e.shape != (0,)
    ]
    for entry in (arrays[0], arrays[len(arrays) // 2], arrays[-1]):
        changed = with_value(recorded[0], entry, int(np.prod(entry.shape)) - 1, bit)
        assert check in found_in(changed)


def test_one_bit_of_a_key(recorded):
    key = next(e for e in recorded[0].entries if (e.kind, e.name) == ("dealt", "key"))
    assert "keys" in found_in(with_value(recorded[0], key, 0, 0))


def test_a_key_of_another_session(recorded):
    (_, first), (_, second) = examined([recorded[0]] * 2, chance.Tests())
    assert (first, {finding.check for finding in second}) == ([], {"keys"})


def test_one_bit_of_a_file(recorded):
    file = next(e for e in recorded[0].entries if e.kind == "written")
    for position in (0, file.shape[0] // 2, file.shape[0] - 1):
        assert "files" in found_in(with_value(recorded[0], file, position, 0))
    kept = next(e for e in recorded[1].entries if e.kind == "kept")
    assert "files" in found_in(recorded[0], with_value(recorded[1], kept, 0, 0))


def test_a_file_more(recorded):
    entries = recorded[0].entries
    file = next(e for e in entries if e.kind == "written")
    assert "files" in found_in(with_entries(recorded[0], [*entries, file]))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("open", {"round": 2**40}),
        ("open", {"told": 5}),
        ("result", {"attempt": 1}),
        ("done", {"step": 2}),
        ("deal", {"run": 77}),
        ("input", {"label": "owners 5"}),
        ("run", {"run": 5}),
        ("run", {"attempt": 1}),
        ("run", {"outputs": [2**30]}),
        ("run", {"counts": [[0, 1]]}),
        ("run", {"delete": [2**30]}),
        ("run", {"forget": [{"name": "00" * 16}]}),
        ("run", {"position": 2**20}),
        ("run", {"to": "worker1"}),
        ("save", {"ids": [0]}),
        ("save", {"keep": 2**20}),
        ("save", {"counts": []}),
    ],
)
def test_another_number_in_a_field(recorded, name, fields):
    """Of any message of that verb, such as one could be told something by."""
    for message in (messages(recorded[0], name)[i] for i in (0, -1)):
        assert "messages" in found_in(with_message(recorded[0], message, **fields))


def test_a_load_of_other_values(recorded):
    message = messages(recorded[1], "load")[0]
    changed = with_message(recorded[1], message, ids=[i + 9 for i in message.fields["ids"]])
    assert "messages" in found_in(changed)


def test_fields_in_another_order(recorded):
    message = messages(recorded[0], "open")[0]
    fields = dict(reversed(message.fields.items()))
    entries = [e._replace(fields=fields) if e is message else e for e in recorded[0].entries]
    assert "messages" in found_in(with_entries(recorded[0], entries))


def test_a_message_with_more_bytes_than_its_fields(recorded):
    message = messages(recorded[0], "result")[0]
    entries = [e._replace(bytes=e.bytes + 1) if e is message else e for e in recorded[0].entries]
    assert "messages" in found_in(with_entries(recorded[0], entries))


@pytest.mark.parametrize("name", ["open", "result", "done"])
def test_a_message_less_or_more_or_in_another_place(recorded, name):
    entries = recorded[0].entries
    one, other = messages(recorded[0], name, "worker1")[:2]
    less = [e for e in entries if e is not one and (e.message is None or e.message != one.number)]
    swapped = [{one.number: other, other.number: one}.get(e.number, e) for e in entries]
    for changed in (less, [*entries, one], swapped):
        kept = copy.copy(recorded[0])
        kept.entries = changed
        assert "messages" in found_in(kept)


def test_a_drawn_array_more(recorded):
    entries = recorded[0].entries
    drawn = next(e for e in entries if (e.kind, e.name) == ("drawn", "words"))
    assert "streams" in found_in(with_entries(recorded[0], [*entries, drawn]))


def test_masks_of_openings_are_apart(recorded):
    """Each has words of its own from every worker's stream, which serve in no other opening: so
    any such masks are independent."""
    for worker in WORKERS:
        words = [o.mask.ravel() for o in openings(recorded[0].view(worker))]
        words = np.concatenate(words)
        assert len(np.unique(words)) == len(words) > 500


def test_what_is_under_an_opening(recorded):
    """All workers' shares of the mask taken off, which are all of it but for truncations."""
    secrets, found = Ledger(recorded[0]).secrets, 0
    with np.errstate(over="ignore"):
        for opening, rest in unknown_to([recorded[0].view(worker) for worker in WORKERS]):
            where = opening.address, opening.number, opening.step
            secret = secrets.pop(where)
            assert secret.shape == rest.shape
            if opening.op in ("input", "above_zero"):
                found += 1
                assert np.array_equal(secret, rest)
    assert secrets == {}
    assert found > 10


def test_related_masks_are_seen():
    """Any two of which one is a small multiple of the other."""
    random = np.random.default_rng(1)
    one, noise = random.integers(2**64, size=(2, 64), dtype=np.uint64)
    small = noise >> np.uint64(40)
    for multiple in (1, -1, 3, -3, 2):
        other = np.uint64(multiple % 2**64) * one + small
        assert chance.related(one, other).min() < 1e-20
    assert chance.related(one, noise).min() > 1e-6


# ---- Noise, which each worker draws for itself


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """The transcript of a small private training."""
    (transcript,) = scenarios.private(tmp_path_factory.mktemp("private"))
    return transcript


def drawn_by(transcript, worker, name):
    """The entries of what a worker drew under this name."""
    return [e for e in transcript.view(worker).arrays("drawn", name=name) if e.shape != (0,)]


@pytest.mark.parametrize("worker", ["worker1", "worker3"])
@pytest.mark.parametrize(
    ("name", "check"), [("noise", "openings"), ("noise words", "streams"), ("urandom", "streams")]
)
def test_one_bit_of_a_worker_s_noise(private, worker, name, check):
    arrays = drawn_by(private, worker, name)
    for entry in (arrays[0], arrays[len(arrays) // 2], arrays[-1]):
        assert check in found_in(with_value(private, entry, entry.shape[0] - 1, 0))


def test_noise_more_or_less(private):
    entries = private.entries
    last = drawn_by(private, "worker2", "noise")[-1]
    assert "streams" in found_in(with_entries(private, [*entries, last]))
    assert "messages" in found_in(with_entries(private, [e for e in entries if e is not last]))
    words = drawn_by(private, "worker2", "noise words")
    for missing in (words[0], words[len(words) // 2]):
        less = with_entries(private, [e for e in entries if e is not missing])
        assert "streams" in found_in(less)
    without = [e for e in entries if (e.sender, e.name) != ("worker2", "noise words")]
    assert "streams" in found_in(with_entries(private, without))


def test_a_key_of_noise_that_another_has(private):
    """One that it was sent, or another worker's."""
    key = drawn_by(private, "worker2", "urandom")[0]
    sent = next(e for e in private.entries if (e.kind, e.name) == ("dealt", "key"))
    for other in (sent, drawn_by(private, "worker1", "urandom")[0]):
        replaced = key._replace(start=other.start, dtype=other.dtype, shape=other.shape)
        entries = [replaced if e is key else e for e in private.entries]
        assert "keys" in found_in(with_entries(private, entries))


def test_noise_that_is_as_it_is_to_be(private):
    """By size, worker and slot; and it is not taken for what the provider has drawn, too."""
    ledger = Ledger(private)
    assert ledger.findings == []
    noises = ledger.noises.used
    assert {noise.worker for noise in noises} == {0, 1, 2}
    assert {noise.slot for noise in noises} == set(range(4))
    assert min(noise.sigma for noise in noises) >= 2**30
    view = private.view(PROVIDER)
    provider = {view.value(e).tobytes() for e in view.arrays("drawn")}
    for worker in private.roster.workers:
        view = private.view(worker)
        own = {view.value(e).tobytes() for e in drawn_by(private, worker, "noise words")}
        assert own and not own & provider


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda n: n // 2, "standard deviation"),
        (lambda n: 2 * n, "standard deviation"),
        (lambda n: n & ~np.int64(1), "low bits"),
        (np.abs, "signs"),
    ],
)
def test_noise_of_another_distribution(private, change, what):
    tests = chance.Tests()
    used = [n._replace(values=change(n.values)) for n in Ledger(private).noises.used]
    reference_noise.examine(used, tests)
    assert any(what in name for name, _ in tests.alarms())


@pytest.mark.parametrize(("back", "what"), [(1, "that of worker"), (12, "the step before")])
def test_noise_that_has_to_do_with_other_noise(private, back, what):
    """With that of the worker before, or, of three workers and four slots, of the step before: in
    sign alone."""
    used = Ledger(private).noises.used
    for number in range(back, len(used)):
        signs = np.sign(used[number - back].values)
        values = used[number].values
        if signs.size == values.size:
            used[number] = used[number]._replace(values=np.abs(values) * signs)
    tests = chance.Tests()
    reference_noise.examine(used, tests)
    assert any(what in name for name, _ in tests.alarms())
