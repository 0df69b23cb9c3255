"""Whether runs of semi2k that are recorded keep to its rules and give nothing away."""

from smpc.audit import Finding, conduct, masks
from smpc.audit.ledger import Ledger


def examined(transcripts, tests):
    """Look at runs, of which later ones may go on from checkpoints of earlier ones.

    Args:
        transcripts: an iterable of `Transcript`s, or `Merged`s, in order.
        tests: the `chance.Tests` that what is opened is put to.
    Yields:
        for each its `Ledger`, and a list of `Finding`.
    """
    written, keys = {}, set()
    for transcript in transcripts:
        ledger = Ledger(transcript, written)
        masks.examine(transcript, ledger.secrets, tests)
        found = [*ledger.findings, *conduct.found_in(transcript)]
        if keys & ledger.keys:
            found.append(Finding("keys", "a key of one session serves in another"))
        yield ledger, found
        written, keys = ledger.written, keys | ledger.keys
