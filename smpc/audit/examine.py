"""Whether runs of semi2k that are recorded keep to its rules and give nothing away."""

from smpc.audit import Finding, conduct, masks, reference_noise
from smpc.audit.ledger import Ledger
from smpc.semi2k.wire import Refused


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
        found = [*ledger.findings, *conduct.found_in(transcript)]
        try:
            masks.examine(transcript, ledger.secrets, tests)
        except (Refused, LookupError, TypeError, ValueError) as error:
            found.append(Finding("chance", f"what was opened cannot be told apart: {error!r}"))
        reference_noise.examine(ledger.noises.used, tests)
        if keys & ledger.keys:
            found.append(Finding("keys", "a key of one session serves in another"))
        yield ledger, found
        written, keys = ledger.written, keys | ledger.keys
