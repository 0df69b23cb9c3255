"""The streams: AES-CTR by its published vectors, each address once, no seed but the system's."""

import multiprocessing

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import algorithms

from smpc.semi2k.randomness import Stream, new_key
from tests.semi2k.conftest import ends


def test_known_answer():
    """AES-256 of the zero block under the zero key (NIST AESAVS, appendix B.1 and others)."""
    stream = Stream(bytes(32), "runs")
    stream._cipher = algorithms.AES(bytes(32))  # in place of the key that HKDF derives
    first = stream.words((0, 0), 2).tobytes()
    assert first.hex() == "dc95c078a2408989ad48a21492842087"


def test_an_address_is_the_high_half_of_the_counter():
    """AES-256 of a counter block: what is drawn at an address depends on it and the key alone."""
    stream = Stream(bytes(32), "runs")
    stream._cipher = algorithms.AES(bytes(32))
    drawn = [stream.words(address, 4) for address in [(0, 0), (0, 1), (1, 0), (1, 3)]]
    other = Stream(bytes(32), "runs")
    other._cipher = algorithms.AES(bytes(32))
    assert np.array_equal(other.words((1, 3), 200_000)[:4], drawn[-1]), "whatever came before"
    assert len(np.unique(np.concatenate(drawn))) == 16


def test_no_address_serves_twice():
    stream = Stream(new_key(), "runs")
    stream.words((3, 1), 0)
    for address in [(3, 1), (3, 0), (2, 9), (0, 0)]:
        with pytest.raises(RuntimeError, match="serves once"):
            stream.words(address, 1)
    assert stream.last == (3, 1)
    assert len(np.unique(stream.words((3, 2), 300_000))) == 300_000


def test_purposes_have_nothing_in_common():
    key = new_key()
    drawn = [Stream(key, purpose).words((0, 0), 1000) for purpose in ("runs", "inputs of owners")]
    assert not np.intersect1d(*drawn).size
    assert np.array_equal(Stream(key, "runs").words((0, 0), 1000), drawn[0])


def test_no_seed_matters():
    keys = []
    for _ in range(2):
        torch.manual_seed(1)
        np.random.seed(1)
        keys.append(new_key())
    assert keys[0] != keys[1]


def openings(session):
    """What a computation opens and shares, and that it is right."""
    sent = []
    carry = session.network.carry

    def recording(sender, receiver, message):
        sent.append((sender, receiver, message))
        return carry(sender, receiver, message)

    session.network.carry = recording
    x = session.share(np.arange(1, 4))
    assert session.reveal(session.graph.times("mul", x, x)).tolist() == [1, 4, 9]
    del session.network.carry
    return [message for sender, _, message in sent if sender != "me"]


def test_after_a_fork_parent_and_child_draw_other_masks(session):
    """And both go on, with what was shared before the fork, too."""
    graph, x = session.graph, session.share(np.array([5, -7]))
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def child():
        said = openings(session)
        sending.send((said, session.reveal(graph.times("mul", x, x)).tolist()))

    process = context.Process(target=child)
    process.start()
    said = openings(session)
    theirs, squares = receiving.recv()
    process.join()
    assert process.exitcode == 0
    assert squares == session.reveal(graph.times("mul", x, x)).tolist() == [25, 49]
    masked = [{m for m in of if len(m) > 60} for of in (said, theirs)]
    assert masked[0]
    assert not masked[0] & masked[1]


def test_a_stream_is_of_one_process(session):
    """What a child would draw of its parent's stream, the parent would draw, too."""
    (worker, *_), _ = ends(session)
    worker._stream._process += 1
    with pytest.raises(RuntimeError, match="belongs to the process"):
        worker._stream.words((9, 0), 1)
