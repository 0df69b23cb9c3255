"""The only source of randomness of `semi2k`: AES-CTR streams keyed by the operating system.

AES-256 in counter mode (NIST SP 800-38A, section 6.5), from the `cryptography` package. A key makes
one stream, from counter 0; no part of a stream is given out twice. No seed of torch, numpy or
Python's `random` has any influence.
"""

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY_BYTES = 32
_ZEROS = bytes(1 << 20)


def new_key():
    """A fresh key from the operating system: 32 bytes."""
    return os.urandom(KEY_BYTES)


class Stream:
    """A stream of uniform 64-bit words that whoever holds `key` can draw likewise.

    Attributes:
        position: how many words have been drawn.
    """

    def __init__(self, key):
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self.position = 0

    def words(self, n):
        """The next `n` words: uint64 (n,), each uniform on [0, 2^64)."""
        out = np.empty(n, dtype=np.uint64)
        view = out.view(np.uint8).data
        for start in range(0, len(view), len(_ZEROS)):
            block = view[start : start + len(_ZEROS)]
            self._encryptor.update_into(_ZEROS[: len(block)], block)
        self.position += n
        return out
