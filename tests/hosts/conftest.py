"""Parties with keys, parts and a plan in a folder: served from this process, or only their ends."""

import contextlib
import datetime
import functools
import secrets
import shutil
import socket
import struct
import time

import grpc
import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from smpc.hosts import certificates, channels, configuration, plans
from smpc.hosts.calls import Calls
from smpc.hosts.configuration import owner_of
from smpc.hosts.grammar import AGAIN, PREDICTION, TRAINING
from smpc.hosts.journal import Journal
from smpc.hosts.owners import SHAPES
from smpc.hosts.parts import PREDICT, Part
from smpc.hosts.party import Party
from smpc.hosts.planning import Planning, plan_of
from smpc.semi2k.network import Network
from smpc.semi2k.owner import Owner, batch_label
from smpc.semi2k.session import Session
from smpc.semi2k.wire import pack, unpack

ROLES = {
    "alice": "worker",
    "bob": "worker",
    "dealer": "crypto provider",
    "server": "server",
    "carol": "client",
}
SERVING = ("alice", "bob", "dealer", "carol")
ITEMS, BATCH, DIGITS = 6, 3, 3
LAYER = (784, 10)
WEIGHTS = {"seed": 1, "drawn": 0, "linear": [LAYER], "digits": DIGITS}
ARGUMENTS = {
    "epochs": 1,
    "n_train_items": 6,
    "n_test_items": 6,
    "batch_size": 3,
    "seed": 1,
    "test_batch_size": 3,
    "lr": [0.02],
    "log_interval": 1,
    "precision_fractional": DIGITS,
    "exact_truncation": False,
    "activation": "relu",
    "checkpoint_every": 100,
    "private": None,
    "delta": 1e-5,
    "clip": 8.0,
    "momentum": 0.0,
    "save_model": False,
}
DECAY = 0.5  # of the weights in a step
TIME_LIMIT = 20  # seconds, for what takes a fraction of one
STEPS = ("alice", "bob", "alice")  # whose batch each position is on


def certify(name, key=None):
    """(key, certificate) of a party, PEM; `key`, by default a new one, also issues it."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    certificate = certificates.self_signed(key, name, now - day, now + day)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, certificate.public_bytes(Encoding.PEM)


@functools.cache
def initial():
    """The weights that a training starts from: int64 (10, 784)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(WEIGHTS["seed"])
        weight = torch.nn.Linear(*LAYER).weight.detach()
    return (weight * 10**DIGITS).long().numpy()


class Training:
    """A layer whose loss is revealed at each step, and whose weights are halved.

    Args:
        session: a `semi2k.session.Session`.
        step: that it goes on from the checkpoint of; None: from the initial weights.
    """

    def __init__(self, session, step=None):
        self.session = session
        if step is None:
            self.weights = session.share(initial())
        else:
            self.load(step)

    def batch(self, owner, start=0, stop=BATCH):
        """The nodes of an owner's images and labels."""
        shapes = [(stop - start, *shape) for shape in SHAPES["train"].values()]
        where = {"which": "train", "start": start, "stop": stop, "digits": DIGITS}
        return self.session.ask_to_share(owner_of(owner), shapes, **where)

    def step(self, batch, to=None):
        """One step on a batch: the loss, int64 (), or None if it is revealed to another."""
        graph, (images, wanted) = self.session.graph, batch
        x = graph.moved("reshape", images, (images.shape[0], LAYER[0]))
        output = graph.times("matmul", x, graph.moved("permute", self.weights, (1, 0)))
        off = graph.added("sub", output, wanted)
        loss = graph.summed(graph.times("mul", off, off), (0, 1), False)
        decay = graph.rounded(graph.scaled(self.weights, DECAY), 1)
        self.weights = graph.added("sub", self.weights, decay)
        self.session.want(self.weights)
        if to is not None:
            return self.session.reveal_to(loss, to)
        return self.session.reveal(loss)

    def save(self, step, keep=None):
        """Have the workers save their shares."""
        self.session.save([self.weights], "run", step, keep)

    def load(self, step):
        """Go on from these."""
        (self.weights,) = self.session.load([LAYER[::-1]], "run", step)


def plan_for(among, to=None, again=AGAIN, steps=STEPS):
    """The `Plan` of a training on the batch of each of `steps`; the last loss is revealed to
    `to`."""
    roster = among.roster()
    planning = Planning(roster, SHAPES)
    session = Session(roster, planning)
    session.position, session.graph.one = 0, 10**DIGITS
    training = Training(session)
    for owner in steps[:-1]:
        training.step(training.batch(owner))
    training.step(training.batch(steps[-1]), to)
    training.save(1)
    training.load(1)
    plan = plan_of(planning, among, TRAINING, ARGUMENTS, WEIGHTS)
    return plans.Plan({**plan.content, "again": again})


class Prediction:
    """The server's model, a layer, that says of each digit whether an image of carol's is that.

    Args:
        session: a `semi2k.session.Session`.
    """

    def __init__(self, session):
        self.session, session.owner = session, owner_of("server")
        label = batch_label(session.owner, "model", 0, 1, "weight", DIGITS)
        session.labels = iter([label])
        self.weights = session.share(initial())

    def images(self, start=0, which=PREDICT):
        """Those of a batch of carol's, and what else she shares of it: nodes."""
        stop = start + BATCH
        shapes = [(BATCH, *shape) for shape in SHAPES[which].values()]
        where = {"which": which, "start": start, "stop": stop, "digits": DIGITS}
        return self.session.ask_to_share(owner_of("carol"), shapes, **where)

    def classify(self, images, to="carol-data"):
        """Have 1 revealed where it is, else 0: of each image, for each digit."""
        graph = self.session.graph
        x = graph.moved("reshape", images, (images.shape[0], LAYER[0]))
        output = graph.times("matmul", x, graph.moved("permute", self.weights, (1, 0)))
        answers = graph.above_zero(output)
        return self.session.reveal_to(answers, to) if to else self.session.reveal(answers)


def plan_for_carol(among):
    """The `Plan` of classifying two batches of carol's."""
    planning = Planning(among.roster(), SHAPES)
    planning.ends[owner_of("server")] = Owner(owner_of("server"), among.roster())
    session = Session(among.roster(), planning)
    session.position, session.graph.one = 0, 10**DIGITS
    prediction = Prediction(session)
    for start in range(0, ITEMS, BATCH):
        prediction.classify(*prediction.images(start))
    arguments = {
        "n_test_items": ITEMS,
        "test_batch_size": BATCH,
        "precision_fractional": DIGITS,
        "activation": "relu",
    }
    return plan_of(planning, among, PREDICTION, arguments, None)


def free_port():
    """A port of 127.0.0.1 that stays free while nobody listens on it: no call begins at it."""
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def write_part(folder, seed, files="train"):
    """A part of `ITEMS` random training items, or "t10k", test items, with labels."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (ITEMS, 28, 28), np.uint8)
    labels = random.integers(0, 10, ITEMS, np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
        (folder / f"{files}-{name}-ubyte").write_bytes(header + array.tobytes())


def losses_in_the_clear(parts):
    """What the steps reveal, but for what is rounded: floats."""
    weights, losses = initial(), []
    for owner in STEPS:
        batch = parts[owner].batch("train", 0, BATCH, DIGITS)
        x = batch["images"].reshape(BATCH, LAYER[0])
        off = x @ weights.T - batch["one_hot"]
        losses.append((off * off).sum())
        weights = weights - weights * DECAY
    return losses


def owners_share_anything(session):
    """Have the owners whose ends are in memory share what no plan is on, if they are asked to."""
    for end in session.network.ends.values():
        if isinstance(end, Owner) and end.part:
            end.part._plan = None


@contextlib.contextmanager
def altered(session, do, **changes):
    """Meanwhile, what the server says with this verb has other fields."""
    network, carry = session.network, session.network.carry

    def carry_altered(sender, receiver, message):
        fields = unpack(message)
        if sender == "server" and fields["do"] == do:
            message = pack(**fields | changes)
        return carry(sender, receiver, message)

    network.carry = carry_altered
    try:
        yield
    finally:
        network.carry = carry


class Hosts:
    """The parties' folders, keys, certificates and parts.

    Attributes:
        folder: that the folders are in; `configuration`: of all.
        identities: name -> (key, certificate), PEM; `parts`: name -> `Part`.
        plan: the `Plan` of `plan_for`.
    """

    def __init__(self, folder):
        self.folder = folder
        self.identities = {name: certify(name) for name in ROLES}
        self.parts, parties = {}, []
        for seed, (name, role) in enumerate(ROLES.items()):
            items = {"train_items": ITEMS} if role == "worker" else {}
            address = None if role == "server" else f"127.0.0.1:{free_port()}"
            certificate = self.identities[name][1]
            parties.append(configuration.Party(name, role, address, certificate, **items))
            self.home(name).mkdir()
            for file, content in zip(
                (certificates.KEY, certificates.CERTIFICATE), self.identities[name], strict=True
            ):
                (self.home(name) / file).write_bytes(content)
                (self.home(name) / file).chmod(certificates.PRIVATE)
            if role == "worker":
                write_part(folder / f"part-{name}", seed)
                self.parts[name] = Part(folder / f"part-{name}")
        self.configuration = configuration.Configuration(parties)
        self.plan = plan_for(self.configuration)

    def home(self, name):
        """The folder of a party."""
        return self.folder / name


@pytest.fixture(scope="session")
def hosts(tmp_path_factory):
    """The `Hosts` of all tests."""
    return Hosts(tmp_path_factory.mktemp("hosts"))


class Parties:
    """The parties that serve, in this process, under a plan, or None.

    Attributes:
        running: name -> `Party`; `journals`: name -> `Journal`; `servers`: name -> `grpc.Server`.
        read: what was revealed to each, name -> lists.
    """

    def __init__(self, hosts, folder, plan):
        self.hosts, self.folder, self.plan = hosts, folder, plan
        self.configuration = hosts.configuration
        self.running, self.journals, self.servers = {}, {}, {}
        self.read = {name: [] for name in SERVING}
        for name in SERVING:
            shutil.copytree(hosts.home(name), folder / name)
            self.make(name)

    def make(self, name, plan=None):
        """A party anew, as by another process: it knows what is on its disk."""
        if name in self.journals:
            self.journals[name].close()
        home, part = self.folder / name, self.hosts.parts.get(name)
        self.journals[name] = Journal(home / "journal.jsonl")
        about = part, plan or self.plan, self.journals[name]
        read = self.read[name]
        self.running[name] = Party(
            name, self.configuration, home, *about, lambda values: read.append(values.tolist())
        )

    def entries(self, name, what):
        """The entries of a kind in a party's journal."""
        return [entry for entry in self.journals[name].entries() if entry["what"] == what]

    # ---- only their ends

    def in_memory(self, position=0):
        """A session of the server's whose messages pass no channel: whatever an end raises is
        raised where it is spoken to."""
        network = Network(self.configuration.roster())
        for party in self.running.values():
            about = {"id": "1", "server": "server", "parties": {}}
            party.note("session", **about, plan=self.plan and self.plan.digest)
            network.ends |= party.make_ends()
        return self._session(network, position)

    def _session(self, network, position):
        ours = owner_of("server")
        network.ends[ours] = Owner(ours, self.configuration.roster())
        session = Session(self.configuration.roster(), network)
        session.position, session.graph.one = position, 10**DIGITS
        return session

    # ---- over gRPC

    def serve(self):
        """Have all listen."""
        for name, party in self.running.items():
            self.servers[name] = party.serve(self.configuration.parties[name].address)

    def stop(self):
        """End all."""
        for name, server in self.servers.items():
            self.running[name].stop("the test is over")
            server.stop(grace=None).wait()
        self.servers.clear()
        for journal in self.journals.values():
            journal.close()

    def dial(self, name, caller="server", identity=None):
        """A channel to a party; `identity` is shown in the place of the caller's."""
        party = self.configuration.parties[name]
        return channels.dial(party, *(identity or self.hosts.identities[caller]))

    def is_up(self, name, caller="server"):
        """What a party's health service says."""
        with self.dial(name, caller) as channel:
            check = channel.unary_unary(f"/{channels.HEALTH}/Check")
            return check(b"", timeout=TIME_LIMIT) == channels.SERVING

    def about(self, **other):
        """Metadata of a session that all take."""
        digest = self.plan.digest if self.plan else channels.ANY
        return {"version": channels.VERSION, "session": "a" * 32, "plan": digest, **other}

    @contextlib.contextmanager
    def connected(self, position=0):
        """A session of the server's on all hosts, which is ended in order, or given up."""
        calls = self.call_all()
        try:
            yield self._session(calls, position)
            calls.end()
        finally:
            calls.hang_up()
            self.wait_until_free()

    def call_all(self):
        """The `Calls` of a new session."""
        about = {"session": secrets.token_hex(16), "plan": self.about()["plan"]}
        return Calls(self.configuration, *self.hosts.identities["server"], about, TIME_LIMIT)

    def wait_until_free(self):
        """Until no party takes part in a session."""
        until = time.monotonic() + TIME_LIMIT
        while any(party._session is not None for party in self.running.values()):
            assert time.monotonic() < until, "a session does not end"
            time.sleep(0.002)

    def check(self, position=0):
        """Check that all are up, and that a session in which nothing is wrong goes through."""
        assert all(map(self.is_up, SERVING))
        with self.connected(position if self.plan else None) as session:
            training = Training(session)
            loss = training.step(training.batch(STEPS[0])).item()
        assert loss == losses_in_the_clear(self.hosts.parts)[0]


@pytest.fixture
def planned(hosts, tmp_path):
    """`Parties` under the plan, which do not serve yet."""
    planned = Parties(hosts, tmp_path, hosts.plan)
    yield planned
    planned.stop()


@pytest.fixture
def served(planned):
    """The same, serving."""
    planned.serve()
    return planned


@pytest.fixture
def predicting(hosts, tmp_path, monkeypatch):
    """`Parties` under the plan of a prediction, in which carol has images and labels."""
    write_part(tmp_path / "part", seed=9, files="t10k")
    monkeypatch.setitem(hosts.parts, "carol", Part(tmp_path / "part"))
    predicting = Parties(hosts, tmp_path, plan_for_carol(hosts.configuration))
    yield predicting
    predicting.stop()


@pytest.fixture
def any_program(hosts, tmp_path):
    """`Parties` without a plan, serving."""
    parties = Parties(hosts, tmp_path, None)
    parties.serve()
    yield parties
    parties.stop()


class Call:
    """A call to a party, frame by frame.

    Args:
        channel: to it; `method`: "Session" or "Say"; `about`: metadata.
    """

    def __init__(self, channel, method, about):
        self._out = channels.new_queue()
        kind = {"Session": channel.stream_stream, "Say": channel.stream_unary}[method]
        call = kind(f"/{channels.SERVICE}/{method}")
        about = tuple(about.items())
        if method == "Session":
            self.answers = call(channels.frames(self._out), metadata=about, timeout=TIME_LIMIT)
        else:
            self.answers = call.future(
                channels.frames(self._out), metadata=about, timeout=TIME_LIMIT
            )

    def put(self, frame):
        """Send a frame; None: there are no more."""
        self._out.put(frame)

    def next(self, *kinds):
        """The next frame of one of these kinds: (kind, *fields)."""
        for frame in self.answers:
            kind, *fields = channels.read_frame(frame)
            if kind in kinds:
                return kind, *fields
        raise AssertionError(f"no {kinds} came")

    def refusal(self):
        """(status, the line) with which the call is refused."""
        with pytest.raises(grpc.RpcError) as refused:
            self.answers.result()
        self.put(None)
        return refused.value.code(), refused.value.details()

    def cancel(self):
        """Break it off."""
        self.answers.cancel()
        self.put(None)
