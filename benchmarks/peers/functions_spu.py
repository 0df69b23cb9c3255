"""The functions of SPU 0.9.5, jax's, under SEMI2K, as it comes, but for the bits after the point
and how it computes e^x: EXP_DEFAULT, EXP_TAYLOR or EXP_PADE.

    python functions_spu.py ARGUMENTS.npz BITS [EXP]
"""

import functools
import re
import sys
import tempfile

from functions import answer, arguments
from task import free_ports, run_parties
from train_spu import Party

TRAFFIC = re.compile(r"Link details: total send bytes (\d+), recv bytes (\d+), send actions (\d+)")


def functions():
    """name -> a function of jax arrays."""
    import jax
    import jax.numpy as jnp

    return {
        "division": lambda x, y: x / y,
        "exp": jnp.exp,
        "log": jnp.log,
        "log_softmax": lambda x: jax.nn.log_softmax(x, axis=1),
        "reciprocal": lambda x: 1 / x,
        "rsqrt": jax.lax.rsqrt,
        "sigmoid": jax.nn.sigmoid,
        "softmax": lambda x: jax.nn.softmax(x, axis=1),
        "sqrt": jnp.sqrt,
        "tanh": jnp.tanh,
    }


def run_party(pids, rank, path, bits, exp, ports, folder):
    """One of the two parties: both run the same. Party 0 makes the shares."""
    # imported in the party's own process: see train_spu.py
    from spu import experimental, libspu

    exp = getattr(libspu.RuntimeConfig, exp)
    settings = {"fxp_fraction_bits": int(bits), "fxp_exp_mode": exp}
    party = Party(rank, "SEMI2K", ports, folder, **settings)

    def traffic():
        runs = TRAFFIC.findall(party.log.read_text())
        return sum(int(n) for *_, n in runs), sum(int(s) + int(r) for s, r, _ in runs)

    answers, computed = {"bytes": None}, functions()
    for name, values in arguments(path).items():
        names = [f"{name}{i}" for i in range(len(values))]
        for one, value in zip(names, values):
            party.share(one, value)
        before = traffic()
        party.compiled(computed[name], values, [name])(*names)
        after = traffic()
        party.compiled(experimental.reveal, values[:1], ["revealed"])(name)
        answers[name] = answer(party.revealed("revealed"), before, after)
    return answers


def main(path, bits, exp="EXP_DEFAULT"):
    ports = free_ports(2)
    with tempfile.TemporaryDirectory() as folder:
        task = {"path": path, "bits": bits, "exp": exp, "ports": ports, "folder": folder}
        run_parties([functools.partial(run_party, rank=rank, **task) for rank in range(2)])


if __name__ == "__main__":
    main(*sys.argv[1:])
