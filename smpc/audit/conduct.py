"""Who says what to whom in a run of semi2k, and when: whatever the values are.

Each function takes a transcript and gives lines for the user, none if all is well.
"""

from smpc.audit import Finding
from smpc.audit.transcript import NOISE, NOISE_WORDS
from smpc.semi2k.wire import ORCHESTRATOR, OWNER, PROVIDER, WORKER

ANOTHER = "another worker"
# Of semi2k's arrays: which role may send what to which (what is public is a program, or weights
# that nobody has trained); parties draw for themselves, and read what they have kept.
MAY_SEND = {
    (OWNER, WORKER): {"share"},
    (PROVIDER, OWNER): {"dealt"},
    (PROVIDER, WORKER): {"dealt"},
    (ORCHESTRATOR, PROVIDER): {"public"},
    (ORCHESTRATOR, WORKER): {"public"},
    (WORKER, ANOTHER): {"masked"},
    (WORKER, ORCHESTRATOR): {"revealed"},
    (WORKER, OWNER): {"revealed"},
    (WORKER, WORKER): {"kept", "written"},
    (ORCHESTRATOR, ORCHESTRATOR): {"written"},
}
MAY_DRAW = {
    WORKER: {"words", "urandom", NOISE_WORDS, NOISE},  # a key of its own, for its noise
    PROVIDER: {"words", "urandom"},
    OWNER: {"words", "random_"},
}


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


def _named(address):
    run, attempt = address
    return f"run {run}, attempt {attempt}"


def found_in(transcript):
    """What goes astray, and what is revealed too early: a list of `Finding`."""
    lines = [*trespasses(transcript), *revealed_too_early(transcript)]
    return [Finding("messages", line) for line in lines]
