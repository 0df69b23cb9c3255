"""Who may share with whom, who sees what, and that nothing is used twice or piles up."""

import gc

import msgpack
import numpy as np
import pytest
import syft
import torch

from smpc.semi2k.network import Network
from smpc.semi2k.rounds import Session
from tests.conftest import reveal


def test_the_parties_must_be_three(parties):
    worker1, worker2 = parties.workers
    third = syft.VirtualWorker(syft.hook, id="worker3")
    x = torch.tensor([1, 2])
    for workers, provider, message in [
        ((worker1, worker2), None, "crypto_provider"),
        ((worker1, worker2), "somebody", "crypto_provider"),
        ((worker1, worker2), worker2, "must be a third party"),
        ((worker1, worker2), syft.local_worker, "not the orchestrator"),
        ((worker1,), parties.crypto_provider, "two workers"),
        ((worker1, worker1), parties.crypto_provider, "two workers"),
        ((worker1, worker2, third), parties.crypto_provider, "two workers"),
    ]:
        with pytest.raises(ValueError, match=message):
            x.share(*workers, crypto_provider=provider, protocol="semi2k")


def test_other_sizes_of_integers_are_refused(parties):
    with pytest.raises(ValueError, match="64-bit"):
        torch.tensor([1]).share(
            *parties.workers,
            crypto_provider=parties.crypto_provider,
            protocol="semi2k",
            dtype="int",
        )


MIXED = r"cannot be mixed|another protocol|protocol snn"


@pytest.mark.parametrize(
    "operation",
    [
        lambda x, y: x + y,
        lambda x, y: x - y,
        lambda x, y: x * y,
        lambda x, y: x @ y,
        lambda x, y: x > y,
        lambda x, y: x == y,
    ],
)
def test_protocols_and_precisions_are_not_mixed(parties, share, operation):
    x = [[1.0, 2.0], [3.0, 4.0]]
    semi2k, snn = share(x, "semi2k"), share(x, "snn")
    for pair in ((semi2k, snn), (snn, semi2k)):
        with pytest.raises(TypeError, match=MIXED):
            operation(*pair)
    with pytest.raises((ValueError, AssertionError), match="precision"):
        operation(semi2k, share(x, "semi2k", precision_fractional=4))

    def integers(protocol):
        return torch.tensor([[1, 2], [3, 4]]).share(
            *parties.workers, crypto_provider=parties.crypto_provider, protocol=protocol
        )

    for pair in (("semi2k", "snn"), ("snn", "semi2k")):
        with pytest.raises(TypeError, match=MIXED):
            operation(*map(integers, pair))


def test_sessions_are_not_mixed(parties, share_integers):
    other_provider = syft.VirtualWorker(syft.hook, id="another_crypto_provider")
    other = torch.tensor([1]).share(
        *parties.workers, crypto_provider=other_provider, protocol="semi2k"
    )
    with pytest.raises(ValueError, match="different parties"):
        share_integers([1]) + other
    assert (other * other).get().tolist() == [1]


@pytest.fixture
def transcript(monkeypatch):
    """Every message of the test: (sender, receiver, kind, its bytes, the reply's bytes)."""
    messages, request = [], Network.request

    def recording(self, sender, receiver, message, kind):
        entry = [sender.id, receiver.id, kind, message, None]
        messages.append(entry)
        entry[-1] = request(self, sender, receiver, message, kind)
        return entry[-1]

    monkeypatch.setattr(Network, "request", recording)
    return messages


def training_step(parties, share, seed=0):
    """One step of a small net; the net, for what comes after."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    net.fix_precision().share(
        *parties.workers,
        crypto_provider=parties.crypto_provider,
        protocol="semi2k",
        requires_grad=True,
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05).fix_precision()
    data = share([[0.5, -1.0, 2.0, 1.0], [1.0, 0.0, -0.5, 0.25]], "semi2k")
    target = share([[1.0, 0.0], [0.0, 1.0]], "semi2k")

    def step():
        optimizer.zero_grad()
        loss = ((net(data) - target) ** 2).sum() / 2
        loss.backward()
        optimizer.step()
        return loss.get().float_precision().item()

    return net, step


def test_the_provider_receives_no_values(parties, share, transcript):
    _, step = training_step(parties, share)
    step()
    to_provider = [m for _, receiver, _, m, _ in transcript if receiver == "crypto_provider"]
    assert to_provider

    def check(field):
        assert not isinstance(field, bytes), "no array of any kind"
        for part in field if isinstance(field, (list, tuple)) else ():
            check(part)

    for message in to_provider:
        fields = msgpack.unpackb(message)
        assert set(fields) == {"serial", "program", "key", "inputs", "delete"}
        check(list(fields.values()))


def test_dealing_passes_by_the_orchestrator(parties, transcript):
    """Keys and corrections go from the provider to the workers, and come back from nobody."""
    provider = syft.VirtualWorker(syft.hook, id="its_provider")  # a session of its own
    x = torch.arange(3).share(*parties.workers, crypto_provider=provider, protocol="semi2k")
    assert (x * x).get().tolist() == [0, 1, 4]
    dealt = []
    for sender, receiver, _, message, reply in transcript:
        what = msgpack.unpackb(message, strict_map_key=False).get("do")
        if what in ("deal", "key"):
            assert sender == "its_provider"
            dealt.append((what, receiver))
        if "its_provider" in (sender, receiver):
            assert reply is None
    assert dealt[:2] == [("key", "worker1"), ("key", "worker2")]
    assert set(dealt[2:]) == {("deal", "worker2")}, "worker1 draws all of its own"
    held = {type(value).__name__ for value in vars(x.child.session).values()}
    assert "Provider" not in held
    assert "Worker" not in held


def opened_words(transcript):
    """What the orchestrator adds up in each round: uint64 arrays."""
    sent = [
        msgpack.unpackb(reply)["words"]
        for _, receiver, kind, _, reply in transcript
        if kind == "online" and receiver.startswith("worker")
    ]
    pairs = zip(sent[::2], sent[1::2], strict=True)
    return [np.frombuffer(a, np.uint64) + np.frombuffer(b, np.uint64) for a, b in pairs]


def test_openings_are_uniform_and_new_in_every_run(parties, share, transcript):
    """The same computation with torch and numpy seeded alike opens other values."""
    opened = []
    for _ in range(2):
        torch.manual_seed(1)
        np.random.seed(1)
        transcript.clear()
        x = share(torch.linspace(-4, 4, 4096).view(64, 64), "semi2k")
        reveal((x @ x).relu())
        opened.append(np.concatenate(opened_words(transcript)))
    one, other = opened
    assert len(one) == len(other) > 12_000
    assert not np.intersect1d(one, other).size
    for words in opened:
        ones = np.unpackbits(words.view(np.uint8)).reshape(-1, 64).mean(axis=0)
        assert np.abs(ones - 0.5).max() < 6 * 0.5 / np.sqrt(len(words)), "every bit is fair"


def test_a_seeded_torch_gives_other_shares(parties, share_integers):
    shares = []
    for _ in range(2):
        torch.manual_seed(1)
        tensor = share_integers(torch.zeros(100, dtype=torch.long)).child
        shares.append(
            [w.object_store.get_obj(tensor.child[w.id].id_at_location) for w in parties.workers]
        )
    for one, other in zip(*shares, strict=True):
        assert not (one == other).any()


def test_sharing_draws_nothing_from_torch(share):
    state = torch.get_rng_state()
    reveal(share([1.0, 2.0], "semi2k").relu())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_dealt_serves_once(parties, share_integers, transcript):
    x = share_integers([3])
    (x * x).get()
    runs = [m for _, receiver, _, m, _ in transcript if receiver == "worker2" and b"run" in m[:12]]
    end = parties.workers[1].crypto_store.semi2k["worker1 worker2 crypto_provider"]
    position = end.stream.position
    with pytest.raises(RuntimeError, match="serves once"):
        end.receive(runs[-1])
    fields = msgpack.unpackb(runs[-1], strict_map_key=False)
    with pytest.raises(RuntimeError, match="nothing is dealt"):
        end.receive(msgpack.packb({**fields, "serial": fields["serial"] + 1, "delete": []}))
    assert end.stream.position == position, "nothing was drawn for either"
    end.serial -= 1
    assert reveal_after(share_integers) == [4]


def reveal_after(share_integers):
    x = share_integers([2])
    return (x * x).get().tolist()


def test_a_mask_dies_with_its_value(parties, share, transcript):
    """The weights' masks are kept within a step and over a test pass, and never over an update."""
    net, step = training_step(parties, share)
    step()
    ends = [w.crypto_store.semi2k["worker1 worker2 crypto_provider"] for w in parties.workers]
    weights = [parameter.child.child.child.node for parameter in net.parameters()]
    assert not any(weight.masked for weight in weights), "updated weights start without a mask"
    for end in ends:
        assert not {weight.id for weight in weights} & set(end.masked)
    step()
    gc.collect()
    reveal(share([1.0], "semi2k"))  # deletions travel with the next message
    stored = [set(w.object_store._objects) for w in parties.workers]
    for end, ids in zip(ends, stored, strict=True):
        assert set(end.masked) <= ids, "no mask outlives its share"


def test_a_kept_mask_is_opened_once(share, transcript):
    x = share(torch.ones(64, 64), "semi2k")
    sizes = []
    for _ in range(2):
        transcript.clear()
        reveal(x @ x)
        sizes.append(sum(map(len, opened_words(transcript))))
    assert sizes[0] - sizes[1] == 64 * 64


def objects(parties):
    """How much every party holds."""
    gc.collect()
    everyone = (*parties.workers, parties.crypto_provider, syft.local_worker)
    counts = [len(party.object_store._objects) for party in everyone]
    name = "worker1 worker2 crypto_provider"
    for worker in parties.workers:
        end = worker.crypto_store.semi2k[name]
        counts += [len(end.masked), len(end.dealt), len(end.programs)]
    dealer = parties.crypto_provider.crypto_store.semi2k[name]
    session = syft.local_worker.crypto_store.semi2k[name]
    counts += [len(dealer.masks), len(dealer.programs), len(session._programs), len(session._dead)]
    counts += [len(session.graph.pending), len(session._wanted), len(syft.ID_PROVIDER.generated)]
    return counts


def test_nothing_piles_up(parties, share):
    _, step = training_step(parties, share)
    for _ in range(8):  # enough for what nobody asks for to be computed: Session.PATIENCE
        step()
    before = objects(parties)
    for _ in range(3):
        step()
        assert objects(parties) == before


def test_equal_computations_make_one_program(share_integers, monkeypatch):
    """Many values that are computed at once, because too much is pending, come in one order."""
    monkeypatch.setattr(Session, "MOST_PENDING", 40)
    x = share_integers(range(20))
    session = x.child.session

    def compute():
        values = [x[i : i + 4] * x[2 * i] for i in range(8)]
        return sum(values).get()

    assert compute().tolist() == [sum(2 * i * (i + k) for i in range(8)) for k in range(4)]
    compute()  # x is masked by now
    before = len(session._programs)
    for _ in range(5):
        compute()
    assert len(session._programs) == before


def test_revealing_what_is_public_takes_no_message(share, transcript):
    zero = share([1.5], "semi2k") * 0 + 1
    transcript.clear()
    assert reveal(zero).tolist() == [1.0]
    assert transcript == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e17])
def test_values_beyond_the_ring_are_not_shared(share, value):
    with pytest.raises(OverflowError, match="too large to be shared"):
        share([1.0, value], "semi2k")
