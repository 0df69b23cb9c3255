"""Whether everybody kept to the rules in a run of semi2k: facts, where `checks` has probabilities.

Each function takes a transcript and gives lines for the user, none if all is well.
"""

import math

import numpy as np

from smpc.audit.openings import Dealer, follow
from smpc.audit.transcript import ORCHESTRATOR, OWNERS, PROVIDER
from smpc.semi2k.arithmetic import Masked

# Of semi2k's arrays: who may send what to whom (what is public is a program); parties draw for
# themselves, and a worker reads what it has kept.
MAY_SEND = {
    (OWNERS, "worker"): {"share"},
    (PROVIDER, OWNERS): {"dealt"},
    (PROVIDER, "worker"): {"dealt"},
    (ORCHESTRATOR, PROVIDER): {"public"},
    (ORCHESTRATOR, "worker"): {"public"},
    ("worker", "another worker"): {"masked"},
    ("worker", ORCHESTRATOR): {"revealed"},
    ("worker", "worker"): {"kept"},
}
MAY_DRAW = {"worker": {"words"}, PROVIDER: {"words"}, OWNERS: {"words", "random_"}}


def trespasses(transcript):
    """Where something went to a party that must not see it, of any value: lines for the user."""
    found = set()
    for entry in transcript.entries:
        ends = _roles(transcript, entry)
        if entry.kind == "drawn":
            if entry.name not in MAY_DRAW.get(ends[0], ()):
                found.add(f"{entry.sender} draws from {entry.name}")
        elif entry.kind != "message" and entry.kind not in MAY_SEND.get(ends, ()):
            found.add(f"{entry.sender} sends {entry.receiver} what is {entry.kind}")
    return sorted(found)


def _roles(transcript, entry):
    sender, receiver = (
        "worker" if party in transcript.workers else party
        for party in (entry.sender, entry.receiver)
    )
    if sender == receiver == "worker" and entry.sender != entry.receiver:
        receiver = "another worker"
    return sender, receiver


def revealed_beyond(transcript, most):
    """Whether more than so many numbers were revealed: a line for the user, if so."""
    shares = transcript.view(ORCHESTRATOR).arrays("revealed", sender=transcript.workers[0])
    revealed = sum(math.prod(entry.shape) for entry in shares)
    return [f"{revealed} numbers are revealed, not {most}"] if revealed > most else []


def revealed_too_early(transcript):
    """Where a worker revealed something while values were yet to be opened; and where it did in an
    attempt that was broken off."""
    revealed, broken_off, found = set(), set(), set()
    for worker in transcript.workers:
        for entry, fields in transcript.view(worker).messages(sender=worker):
            if entry.name not in ("open", "result", "anew"):
                continue
            address = fields["run"], fields["attempt"]
            if entry.name == "result":
                revealed.add((worker, address))
            elif entry.name == "anew":
                broken_off.add(address)
            elif (worker, address) in revealed:
                found.add(f"{worker} reveals what {_named(address)} gives before its last round")
    for worker, address in revealed:
        if address in broken_off:
            found.add(f"{worker} reveals what {_named(address)} gives, which was broken off")
    return sorted(found)


def wraps_used(transcript):
    """Where a run was carried through although a truncation's opening may have wrapped."""
    found = set()
    for worker in transcript.workers:
        for opening in follow(transcript.view(worker)).openings:
            if opening.op == "truncate" and opening.counts and opening.value.size:
                _, d, zone, _ = opening.params
                if opening.value.min() < 2**zone:
                    address = _named(opening.address)
                    found.add(f"{worker} goes on with {address}, in the zone of a division by {d}")
    return sorted(found)


def misfits(transcript):
    """Where masks and what is opened under them do not go together, all views taken together.

    That is, where the workers' shares of a stored value's mask are not those of what the provider
    takes for it; and where a truncation's quotient is not that of what was truncated.
    """
    workers = [follow(transcript.view(worker)) for worker in transcript.workers]
    dealer, found = Dealer(transcript.view(PROVIDER)), set()
    with np.errstate(over="ignore"):
        for address, masks in dealer.held.items():
            for id, mask in masks.items():
                held = [worker.held[address][id] for worker in workers]
                if not isinstance(held[0], Masked) or held[0].a is None:
                    continue
                if (sum(value.a for value in held) != mask).any():
                    found.add(f"the masks of value {id} do not fit in {_named(address)}")
        for opening in workers[0].openings:
            if opening.op == "truncate" and opening.counts:
                _, d, _, _ = opening.params
                outs = workers[0].programs_of[opening.address].instructions[opening.number].outs
                y_mask, x_mask = (dealer.known[opening.address][out] for out in outs)
                x = opening.masked + x_mask
                y = opening.value // np.uint64(d) - np.uint64(opening.offset // d) + y_mask
                error = y.view(np.int64) - x.view(np.int64) // d
                if not ((error == 0) | (error == 1)).all():
                    found.add(f"a quotient by {d} does not fit in {_named(opening.address)}")
    return sorted(found)


def _named(address):
    run, attempt = address
    return f"run {run}, attempt {attempt}"


def found_in(transcript, most):
    """All of these lines; `most`: how many numbers may be revealed."""
    return [
        *trespasses(transcript),
        *revealed_beyond(transcript, most),
        *revealed_too_early(transcript),
        *wraps_used(transcript),
        *misfits(transcript),
    ]
