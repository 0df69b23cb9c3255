"""The only source of randomness of `semi2k`: AES-CTR streams keyed by the operating system.

AES-256 in counter mode (NIST SP 800-38A, section 6.5), under keys that HKDF-SHA256 (RFC 5869)
derives, one for each purpose, both from the `cryptography` package. What is drawn has an address,
(run, attempt), which is the high half of the counter; whoever holds the key draws the same at the
same address, whatever was drawn before. No seed of torch, numpy or Python's `random` has any
influence.
"""

import itertools
import os
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

Address = tuple[int, int]  # (run, attempt)

KEY_BYTES = 32
MOST_RUNS, MOST_ATTEMPTS = 2**48, 2**16  # which an address has room for
_ZEROS = bytes(1 << 20)


def new_key() -> bytes:
    """A fresh key from the operating system: 32 bytes."""
    return os.urandom(KEY_BYTES)


class Stream:
    """Uniform 64-bit words that whoever holds `key` can draw likewise, at an address.

    Args:
        key: of 32 bytes.
        purpose: streams of one key and different purposes have nothing in common.
    Attributes:
        last: the address that was drawn at last; none up to it serves again.
    """

    last: Address

    def __init__(self, key: bytes, purpose: str):
        derive = HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose.encode()).derive
        self._cipher, self._process = algorithms.AES(derive(key)), os.getpid()
        self.last = (-1, 0)

    def words(self, address: Address, n: int) -> NDArray[np.uint64]:
        """`n` words: (n,), each uniform on [0, 2^64).

        Args:
            address: later than every address before.
        Raises:
            RuntimeError: something was drawn at this address or a later one; or by a process that
                this one was forked from, and would be drawn there, too.
        """
        if os.getpid() != self._process:
            raise RuntimeError("this stream belongs to the process that this one was forked from")
        if address <= self.last:
            raise RuntimeError(f"address {address} after {self.last}: what is drawn serves once")
        self.last = address
        run, attempt = address
        counter = (run * MOST_ATTEMPTS + attempt) << 64
        encryptor = Cipher(self._cipher, modes.CTR(counter.to_bytes(16, "big"))).encryptor()
        out = np.empty(n, dtype=np.uint64)
        view = out.view(np.uint8).data
        for start in range(0, len(view), len(_ZEROS)):
            block = view[start : start + len(_ZEROS)]
            encryptor.update_into(_ZEROS[: len(block)], block)
        return out


def fresh(purpose: str) -> Callable[[int], NDArray[np.uint64]]:
    """What draws words under a new key that nobody else gets: a function from how many to words
    (n,), uniform, each drawn once."""
    stream, calls = Stream(new_key(), purpose), itertools.count()
    return lambda n: stream.words((next(calls), 0), n)
