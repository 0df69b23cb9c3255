"""What the orchestrator asks for: the numbers in its messages follow from those before, all public.

It knows shapes, programs and what is revealed to it; each number that it says is the next of a
count, or one that was said before, so that none can hold anything else.
"""

import hashlib

TOLD_ALL = "run", "public", "save", "load"  # all workers; of the first two the provider, too
_RUN = "run attempt program key inputs outputs counts delete forget position to"
FIELDS = {
    "keys": ("owners",),
    "share": ("ids which start stop digits",),
    "public": ("id shape label", "id shape values"),
    "run": (_RUN,),
    "save": ("run_id step ids counts keep",),
    "load": ("ids run_id step shapes",),
}
AHEAD = 3  # addresses that a plan's next positions may have been dealt for


class Requests:
    """The rules for all that one orchestrator asks for, message by message.

    Args:
        transcript: what it is of. Its arguments may declare that there are "public" values in a
            simulation, and how many times there are "keys".
        find: called with (check, line) for each breach.
        shared: numbers of the values that owners share.
        has_plan: whether it follows one; initial weights are public then.
    Attributes:
        is_broken_off: whether the latest attempt was; set by whoever computes it.
    """

    def __init__(self, transcript, find, shared, has_plan):
        self.roster, self._find, self._shared = transcript.roster, find, shared
        self._declared, self.is_broken_off = transcript.arguments, False
        self._may_be_public = has_plan or self._declared.get("public", False)
        self._next, self._deleted = 0, set()
        self._told = {}  # verb -> (fields that all are told, who has been)
        self._known, self._steps = set(), []
        self._latest, self._position, self._resumes = (-1, 0), None, False
        self._counts, self._asked, self._passed_over = (), {}, set()
        self._label, self._n_keys = None, 0

    def check(self, receiver, verb, fields):
        """The next message that it says."""
        if " ".join(fields) not in FIELDS.get(verb, ()):
            self._wrong(f"the fields of {verb} are {', '.join(fields)}")
            return
        common = {k: v for k, v in fields.items() if k not in ("label", "values")}
        told, who = self._told.get(verb, (None, ()))
        if told == common and receiver not in who:
            who.add(receiver)
            if verb == "public":
                self._check_public(fields)
            return
        self._check_told(verb)
        self._told[verb] = common, {receiver}
        if self._latest != (-1, 0) and not self.is_broken_off:
            self._counts = (self._latest,)
        getattr(self, f"_check_{verb}")(fields)

    def finish(self):
        """That is all that it says."""
        for verb in self._told:
            self._check_told(verb)
        self._fresh([])
        if max(self._shared, default=-1) >= self._next:
            self._wrong("an owner's value has a number that is not the next")

    def _check_told(self, verb):
        """Whether everybody was told the same."""
        _, who = self._told.get(verb, (None, ()))
        provider = {self.roster.provider} if verb in ("run", "public") else set()
        if who and verb in TOLD_ALL and who != {*self.roster.workers, *provider}:
            self._wrong(f"not everybody is told the same {verb}")

    def is_passed_over(self, address):
        """Whether no run came at this address, which may have been dealt for, under a plan."""
        return address in self._passed_over

    def _wrong(self, text):
        self._find("messages", f"{self.roster.orchestrator}: {text}")

    def _fresh(self, ids):
        """Whether these are the next numbers of values; they are taken."""
        for id in (*ids, None):
            while self._next in self._shared:
                self._next += 1
            if id is None:
                return
            if id != self._next:
                self._wrong(f"value {id} is not the next, {self._next}")
            self._next = max(self._next, id) + 1

    def _check_keys(self, fields):
        if not set(fields["owners"]) <= set(self.roster.owners):
            self._wrong("keys for strangers")
        self._n_keys += 1
        if self._n_keys > self._declared.get("keys", 1):
            self._wrong("keys are made anew, and nothing was forked")

    def _check_share(self, fields):
        if not set(fields["ids"]) <= self._shared.keys():
            self._wrong("it asks for values that nobody shares")

    def _check_public(self, fields):
        if not self._may_be_public or self._latest != (-1, 0):
            self._wrong(f"value {fields['id']} is made public")
        if "values" not in fields:
            self._label = fields["label"]
            self._fresh([fields["id"]])
        elif self._label != f"public {hashlib.sha256(fields['values']).hexdigest()}":
            self._wrong(f"value {fields['id']} is public, and not called so")

    def _check_save(self, fields):
        self._check_counts(fields)
        if fields["keep"] not in (None, *self._steps):
            self._wrong(f"step {fields['keep']} is to be kept, and was not saved")
        self._steps.append(fields["step"])

    def _check_load(self, fields):
        self._steps.append(fields["step"])
        self._fresh(fields["ids"])
        self._resumes = True

    def _check_counts(self, fields):
        if fields["counts"] != self._counts:
            self._wrong("attempts count that did not come to an end, or none does")

    def _check_run(self, fields):
        address, again = (fields["run"], fields["attempt"]), False
        if self._position is not None:
            end = address[0] + (address[1] > 0)
            self._passed_over |= {(run, 0) for run in range(self._latest[0] + 1, end)}
        run, attempt = self._latest
        jumps = (0,) if self._position is None else (0, AHEAD)  # over what was dealt ahead
        if self.is_broken_off:
            again = address in [(run + jump, attempt + 1) for jump in jumps]
        if not again and address not in [(run + 1 + jump, 0) for jump in jumps]:
            self._wrong(f"run {address} after {self._latest}")
        if again and any(fields[k] != v for k, v in self._asked.items()):
            self._wrong("another attempt is at something else")
        self._asked = {k: v for k, v in fields.items() if k not in ("run", "attempt")}
        self._check_counts(fields)
        self._check_program(fields, again)
        self._check_values(fields, again)
        self._check_position(fields, again)
        self._latest = address

    def _check_program(self, fields, again):
        name, key = fields["program"], fields["key"]
        known, is_sent = self._known - set(fields["forget"]), key is not None
        if is_sent == (name in known) and not again:
            self._wrong("a program is sent that is known, or none that is not")
        if key is not None and hashlib.sha256(key).digest()[:16] != name:
            self._wrong("a program is not called by its SHA-256")
        if not set(fields["forget"]) <= self._known:
            self._wrong("programs are to be forgotten that nobody knows")
        self._known = known | {name}

    def _check_values(self, fields, again):
        if not again:
            self._fresh([id for id in fields["outputs"] if id not in fields["inputs"]])
        deleted = fields["delete"]
        if list(deleted) != sorted(deleted):
            self._wrong("values are to be deleted in another order than theirs")
        for id in deleted:
            if id >= self._next and id not in self._shared:
                self._wrong(f"value {id} is to be deleted, and was not there")
        repeated = set(deleted) & self._deleted and not again
        if repeated or len(set(deleted)) < len(deleted):
            self._wrong("values are to be deleted twice")
        self._deleted |= set(deleted)

    def _check_position(self, fields, again):
        position = fields["position"]
        if fields["to"] not in (None, *self.roster.owners):
            self._wrong(f"something is to be revealed to {fields['to']}")
        if position is not None:
            first = 0 if self._position is None else self._position + (not again)
            if position != first and not self._resumes:
                self._wrong(f"position {position} of the plan after {self._position}")
            self._position, self._resumes = position, False
