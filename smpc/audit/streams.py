"""The streams of semi2k, recomputed: what whoever holds a key draws from it.

It is written from docs/protocol.md ("Randomness"), and shares nothing with `semi2k.randomness`:
HKDF is that of RFC 5869 by HMAC, and AES in counter mode is AES of each counter (NIST SP 800-38A,
section 6.5).
"""

import hashlib
import hmac

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

RUNS, NOISE = "runs", "noise"
AT_ONCE = 1 << 16  # blocks


def inputs_of(owner):
    """The purpose of the streams under which an owner's values are masked."""
    return f"inputs of {owner}"


def words(key, purpose, address, n):
    """The first `n` words of a stream at an address: uint64 (n,).

    Args:
        key: 32 bytes; purpose: a string.
        address: (run, attempt), or (share, 0) of what an owner shares.
    """
    cipher = Cipher(algorithms.AES(_derived(key, purpose)), modes.ECB()).encryptor()
    run, attempt = address
    out = np.empty(2 * -(-n // 2), np.uint64)
    for start in range(0, len(out) // 2, AT_ONCE):
        blocks = np.empty((min(AT_ONCE, len(out) // 2 - start), 2), ">u8")
        blocks[:, 0] = (run << 16) + attempt
        blocks[:, 1] = np.arange(start, start + len(blocks), dtype=np.uint64)
        stream = np.frombuffer(cipher.update(blocks.tobytes()), "<u8")
        out[2 * start : 2 * start + len(stream)] = stream
    return out[:n]


def _derived(key, purpose):
    """HKDF-SHA256 without a salt: the first, and here only, block of its output."""
    extracted = hmac.digest(bytes(32), key, hashlib.sha256)
    return hmac.digest(extracted, purpose.encode() + b"\x01", hashlib.sha256)
