"""A run as the audit looks at it: of one transcript, or of those that each party has recorded on a
host of its own, put together by whoever is entitled to all of them.
"""

import itertools

from smpc.audit.transcript import Transcript, TranscriptError


class Merged:
    """All parties' views of one run.

    Attributes:
        protocol, arguments, roster: as the orchestrator's `Transcript` has them.
        parties, entries: those of all; what passes between two hosts is in `entries` twice.
    """

    def __init__(self, paths):
        """Read and check the transcripts at these paths, pathlib.Path.

        Raises:
            TranscriptError: one cannot be read or is cut off, they are not all of one session, a
                party's is there twice, or one is missing.
        """
        transcripts, self._of = [Transcript(path) for path in paths], {}
        first = transcripts[0]
        for transcript in transcripts:
            self._add(transcript, first)
        self.entries = [entry for transcript in transcripts for entry in transcript.entries]
        self.parties, orchestrator = [*self._of], first.roster.orchestrator
        took_part = {party for entry in self.entries for party in (entry.sender, entry.receiver)}
        took_part |= {*first.roster.workers, first.roster.provider, orchestrator}
        if missing := sorted(took_part - self._of.keys()):
            raise TranscriptError(f"missing: a transcript with what {', '.join(missing)} saw")
        asks = self._of[orchestrator]
        self.protocol, self.arguments, self.roster = asks.protocol, asks.arguments, asks.roster

    def _add(self, transcript, first):
        path = transcript.path
        if transcript.session != first.session:
            raise TranscriptError(f"{path} is of another session than {first.path}")
        for party in transcript.parties:
            if (other := self._of.setdefault(party, transcript)) is not transcript:
                raise TranscriptError(f"{path} has what {party} saw, which {other.path} has, too")
        if transcript.cut_off is not None:
            raise TranscriptError(f"{path} is of a session that was cut off: {transcript.cut_off}")

    def view(self, party):
        """The `View` of a party, by its id, as it was recorded where that was."""
        return self._of[party].view(party)

    def contradictions(self):
        """Where what one party has said to another is not what that one has heard: lines for the
        user."""
        found = []
        for sender, receiver in itertools.permutations(self.parties, 2):
            if self._of[sender] is self._of[receiver]:
                continue
            said, heard = (
                [fields for _, fields in view.messages(sender=sender, receiver=receiver)]
                for view in map(self.view, (sender, receiver))
            )
            if said != heard:
                found.append(f"{receiver} has heard something else than {sender} has said to it")
        return found
