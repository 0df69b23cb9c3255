"""Whether everybody kept to the rules in a run of semi2k: facts, where `checks` has probabilities.

Each function takes a transcript and gives lines for the user, none if all is well.
"""

import math

import numpy as np

from smpc.audit.openings import Dealer, follow
from smpc.semi2k.arithmetic import Masked
from smpc.semi2k.wire import ORCHESTRATOR, OWNER, PROVIDER, WORKER

ANOTHER = "another worker"
LAYERS = (784, 128), (128, 64), (64, 10)  # of the script's network
# Of semi2k's arrays: which role may send what to which (what is public is a program, or weights
# that nobody has trained); parties draw for themselves, and a worker reads what it has kept.
MAY_SEND = {
    (OWNER, WORKER): {"share"},
    (PROVIDER, OWNER): {"dealt"},
    (PROVIDER, WORKER): {"dealt"},
    (ORCHESTRATOR, PROVIDER): {"public"},
    (ORCHESTRATOR, WORKER): {"public"},
    (WORKER, ANOTHER): {"masked"},
    (WORKER, ORCHESTRATOR): {"revealed"},
    (WORKER, WORKER): {"kept"},
}
MAY_DRAW = {WORKER: {"words"}, PROVIDER: {"words"}, OWNER: {"words", "random_"}}


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
    sender, receiver = map(transcript.roster.role, (entry.sender, entry.receiver))
    if sender == receiver == WORKER and entry.sender != entry.receiver:
        receiver = ANOTHER
    return sender, receiver


def promised(transcript):
    """How many numbers a training of the script may reveal, by its arguments."""
    arguments, roster = transcript.arguments, transcript.roster
    batches = math.ceil(arguments["n_train_items"] / arguments["batch_size"])
    asked = transcript.view(roster.orchestrator).messages(sender=roster.orchestrator, name="share")
    if trained_on := {fields["ids"] for _, fields in asked if fields["which"] == "train"}:
        batches = len(trained_on)  # on hosts, where each owner has batches of its own
    losses = math.ceil(batches / arguments["log_interval"])
    weights = sum((i + 1) * o for i, o in LAYERS) if arguments["save_model"] else 0
    return arguments["epochs"] * (losses + 1) + weights


def revealed_beyond(transcript, most):
    """Whether more than so many numbers were revealed: a line for the user, if so."""
    roster = transcript.roster
    shares = transcript.view(roster.orchestrator).arrays("revealed", sender=roster.workers[0])
    revealed = sum(math.prod(entry.shape) for entry in shares)
    return [f"{revealed} numbers are revealed, not {most}"] if revealed > most else []


def revealed_too_early(transcript):
    """Where a worker revealed something while values were yet to be opened; and where it did in an
    attempt that was broken off."""
    revealed, broken_off, found = set(), set(), set()
    for worker in transcript.roster.workers:
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
    for worker in transcript.roster.workers:
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
    workers = [follow(transcript.view(worker)) for worker in transcript.roster.workers]
    dealer, found = Dealer(transcript.view(transcript.roster.provider)), set()
    with np.errstate(over="ignore"):
        for address, masks in dealer.held.items():
            for id, mask in masks.items():
                held = [worker.held[address].get(id) for worker in workers]  # or it is yet to come
                if not all(isinstance(value, Masked) and value.a is not None for value in held):
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
