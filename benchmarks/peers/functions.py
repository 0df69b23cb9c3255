"""What peers' functions are compared by: a file of arguments, and each function's name.

It runs in each peer's own environment and needs numpy alone. A peer's script is run as
`python SCRIPT ARGUMENTS.npz BITS`; the last line that it prints has, as JSON, of each function the
`values` that it gave, and the `rounds` and the `bytes` of both parties that it took.
"""

import numpy


def arguments(path):
    """name of a function -> its arguments, a list of one or two float32 arrays."""
    with numpy.load(path) as file:
        names = sorted({key.split("-")[0] for key in file})
        return {
            name: [file[key] for key in sorted(file) if key.split("-")[0] == name] for name in names
        }


def answer(values, before, after):
    """A function's entry; `before`, `after`: (rounds, bytes) as counted then."""
    rounds, sent = (b - a for a, b in zip(before, after))
    return {
        "values": numpy.asarray(values, numpy.float64).ravel().tolist(),
        "rounds": rounds,
        "bytes": sent,
    }
