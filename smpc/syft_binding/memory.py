"""Memory that does not grow with the number of steps."""

import ctypes
import itertools
import platform

import syft
from syft.generic import id_provider


def install():
    """Make the changes."""
    number_ids()
    keep_freed_memory()


def number_ids():
    """syft draws ids at random, and remembers each so as to give it once: 16 MB for every epoch of
    MNIST. Numbers from a random one on come once by themselves."""

    class Forgotten(set):
        def add(self, id):
            """Do nothing."""

    id_provider.create_random_id = itertools.count(id_provider.create_random_id()).__next__
    syft.ID_PROVIDER.generated = Forgotten(syft.ID_PROVIDER.generated)


def keep_freed_memory():
    """Not a change in syft: have glibc reuse the memory of freed arrays, where by default it gives
    back to the system, and takes anew page by page, what every round frees and needs again."""
    if platform.libc_ver()[0] == "glibc":
        mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 1 << 28)
        libc.mallopt(trim_threshold, 1 << 30)
