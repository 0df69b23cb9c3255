"""The streams: AES-CTR by its published vectors, each word once, no seed but the system's."""

import numpy as np
import torch

from smpc.semi2k.randomness import Stream, new_key


def test_known_answer():
    """AES-256 of the zero block under the zero key (NIST AESAVS, appendix B.1 and others)."""
    first = Stream(bytes(32)).words(2).tobytes()
    assert first.hex() == "dc95c078a2408989ad48a21492842087"


def test_no_word_is_given_out_twice():
    key = new_key()
    whole, parts = Stream(key).words(300_000), Stream(key)
    drawn = np.concatenate([parts.words(n) for n in (1, 7, 131_072, 168_920)])
    assert np.array_equal(drawn, whole)
    assert parts.position == 300_000
    assert len(np.unique(whole)) == len(whole)


def test_no_seed_matters():
    keys = []
    for _ in range(2):
        torch.manual_seed(1)
        np.random.seed(1)
        keys.append(new_key())
    assert keys[0] != keys[1]
