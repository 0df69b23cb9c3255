"""Every message of a run of semi2k against what the rules give, and every word that was drawn.

What workers, the provider and the owners say follows from the keys, the owners' values, the
checkpoints that were read, and what the orchestrator asks for: `reference` computes it, and
`Ledger` holds each party's view against it, so that a message, a field or a word more, less or
other than that is found for certain. What the orchestrator asks for follows from what is public:
see `requests`.
"""

import hashlib
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from smpc.audit import Finding, files, streams
from smpc.audit.expected import Expected
from smpc.audit.reference import Attempt, Deal, Program
from smpc.audit.reference_noise import Noises
from smpc.audit.reference_values import Held, Wrong, total, unmasked
from smpc.audit.requests import Requests
from smpc.audit.transcript import NOISE, NOISE_WORDS

RAW = "<u8"
ZONE = 41  # bits: the widest of a truncation, see docs/protocol.md
FINE = 2**30  # the least standard deviation of noise, in integers: then it is as good as Gaussian
LARGEST = 2**40  # what an owner shares is less: under a mask that it has not, it would not be
# What an owner calls a value that it is not asked for: of its model.
MODEL = r"{} model 0:1 [a-z0-9.]{{1,12}}, \d digits"


class Ran(NamedTuple):
    """A run that was carried through.

    Attributes:
        address: (run, attempt); to: the owner to whom it reveals something, or None.
        inputs: number of each value that it reads -> the value, all shares together.
        revealed: uint64 (n,), likewise.
    """

    address: tuple
    to: str | None
    inputs: dict
    revealed: np.ndarray


class Ledger:
    """What is to be said and drawn in a run, and what was.

    Args:
        transcript: a `Transcript` or a `Merged`.
        written: what workers wrote in transcripts of before: (worker, run_id, step) -> bytes.
    Attributes:
        findings: a list of `Finding`.
        inputs: number of a value that an owner shared -> the value.
        secrets: (address, instruction, step) of an `openings.Opening` -> what is under it: what is
            left of `masked` where the mask is 0.
        runs: a list of `Ran`, in order; keys: the set of all.
        noises: the workers' `Noises`.
    """

    def __init__(self, transcript, written=()):
        self.roster = roster = transcript.roster
        self.findings, self.inputs, self.secrets, self.runs = [], {}, {}, []
        self.written = dict(written)
        self._views = {party: transcript.view(party) for party in transcript.parties}
        self._expected, self._words = Expected(roster, self._views, self._find), {}
        self._values, self._unsettled, self._programs = {}, {}, {}
        self._keys = self._read_keys()
        self.keys = {key for keys in self._keys.values() for key in keys}
        self._n = len(roster.workers)
        self._shares, self._labels = {}, self._labels_asked_for()
        me = roster.orchestrator
        runs = self._views[me].messages(sender=me, name="run")
        self._widest = transcript.arguments.get("zone", ZONE)
        self._has_plan = any(fields["position"] is not None for _, fields in runs)
        self._requests = Requests(transcript, self._find, self.inputs, self._has_plan)
        self._files = {w: self._views[w].arrays("written") for w in roster.workers}
        self._kept = {w: self._views[w].arrays("kept") for w in roster.workers}
        self.noises = Noises([self._drawn(w, NOISE) for w in roster.workers])
        to_the_end = self._compute()
        self._expected.compare(to_the_end)
        self._compare_words(to_the_end)
        self._compare_noise(to_the_end)
        self._compare_files(to_the_end)
        self._compare_keys()

    def _compute(self):
        """Note all that is to be said and drawn; whether that could be computed to the end."""
        try:
            with np.errstate(over="ignore"):
                self._share_inputs()
                self._follow()
        except (Wrong, ArithmeticError, LookupError, TypeError, ValueError) as error:
            self._find("messages", f"what is asked for cannot be computed: {error!r}")
            return False
        if self._has_plan:
            self._expect_ahead(max(map(len, self._keys.values())) - 1)
        return True

    def _find(self, check, text):
        finding = Finding(check, text)
        if finding not in self.findings:
            self.findings.append(finding)

    def _said(self, sender, receiver):
        """The messages from one to another: (entry, fields)."""
        return self._views[sender].messages(sender=sender, receiver=receiver)

    # ---- keys, and what is drawn

    def _read_keys(self):
        """Of each party its keys, in order."""
        roster, keys = self.roster, {}
        for party in (*roster.workers, *roster.owners):
            if party in self._views:
                told = self._said(roster.provider, party)
                keys[party] = [fields["key"] for _, fields in told if fields["do"] == "key"]
        return keys

    def _draws(self, program, epoch, address):
        """What each worker draws for an attempt at a run, the last less than the others."""
        every = program.drawn + program.corrections
        sizes = [every] * (self._n - 1) + [program.drawn]
        return [
            streams.words(self._keys[worker][epoch], streams.RUNS, address, size)
            for worker, size in zip(self.roster.workers, sizes, strict=True)
        ]

    def _note_drawn(self, words, *parties):
        """These parties are to draw these words."""
        for party in parties:
            self._words.setdefault(party, []).append(words)

    def _drawn(self, party, name="words"):
        """All that a party has drawn of this name; "words": of streams that a key is sent for."""
        view = self._views[party]
        return [view.value(entry) for entry in view.arrays("drawn", name=name)]

    # ---- owners' values

    def _share_inputs(self):
        roster, epoch = self.roster, -1
        self._deltas = {
            (owner, fields["id"]): fields["delta"]
            for owner in roster.owners
            if owner in self._views
            for _, fields in self._said(owner, roster.workers[0])
            if fields["do"] == "input"
        }
        for entry, fields in self._views[roster.provider].messages(receiver=roster.provider):
            if fields["do"] == "keys":
                epoch += 1
            elif fields["do"] == "input":
                self._share_input(epoch, entry.sender, fields)

    def _share_input(self, epoch, owner, fields):
        roster, share, shape = self.roster, self._next_share(owner, fields), fields["shape"]
        size = int(np.prod(shape, dtype=np.int64))
        where = streams.inputs_of(owner), (share, 0), size
        mask, *parts = (
            streams.words(self._keys[party][epoch], *where)
            for party in (owner, *roster.workers[:-1])
        )
        for party, words in zip((owner, *roster.workers), (mask, *parts), strict=False):
            self._note_drawn(words, roster.provider, party)
        parts.append(mask - total(parts))
        corrections = parts[-1].tobytes()
        last, about = roster.workers[-1], {"owner": owner, "share": share}
        self._expected.say(roster.provider, last, "deal_input", **about, corrections=corrections)
        delta = np.frombuffer(self._deltas[owner, fields["id"]], RAW)
        said = {name: fields[name] for name in ("share", "id", "shape", "label")}
        self._expected.say(owner, roster.provider, "input", **said)
        for worker in roster.workers:
            self._expected.say(owner, worker, "input", **said, delta=delta.tobytes())
        value = Held("masked", [part.reshape(shape) for part in parts], delta.reshape(shape))
        self._values[fields["id"]] = value, mask.reshape(shape)
        self.inputs[fields["id"]] = secret = (delta + mask).reshape(shape)
        if (np.abs(secret.view(np.int64)) >= LARGEST).any():
            self._find("openings", f"{owner} shares value {fields['id']} under another mask")
        self.secrets[None, fields["id"], 0] = -secret

    def _next_share(self, owner, fields):
        """The number of what an owner shares next: it follows from those before, as its name does
        from what the owner was asked for."""
        share = self._shares[owner] = self._shares.get(owner, -1) + 1
        if fields["share"] != share:
            self._find("messages", f"{owner} shares {fields['share']}, which is not the next")
        pattern = self._labels.get(fields["id"], MODEL.format(re.escape(owner)))
        if not re.fullmatch(pattern if self._has_plan else "None", str(fields["label"])):
            self._find("messages", f"{owner} calls a value otherwise than it is asked for")
        return fields["share"]

    def _labels_asked_for(self):
        """Number of a value that an owner is asked to share -> a pattern of what it is called."""
        labels, me = {}, self.roster.orchestrator
        for entry, fields in self._views[me].messages(sender=me, name="share"):
            which = "{which} {start}:{stop} (images|one_hot|labels), {digits} digits".format(
                **fields
            )
            labels |= dict.fromkeys(fields["ids"], f"{re.escape(entry.receiver)} {which}")
        return labels

    # ---- what the orchestrator asks for

    def _follow(self):
        roster, epoch = self.roster, -1
        first = roster.workers[0]
        for entry, fields in self._views[roster.orchestrator].messages(sender=roster.orchestrator):
            verb = fields.pop("do")
            self._requests.check(entry.receiver, verb, fields)
            if verb == "keys":
                epoch += 1
                self.noises.forget()
                for party in (*roster.workers, *fields["owners"]):
                    self._expected.say(roster.provider, party, "key", key=self._keys[party][epoch])
            elif verb == "run" and entry.receiver == first:
                self._run(epoch, **fields)
            elif verb == "public" and entry.receiver == first:
                value = np.frombuffer(fields["values"], RAW).reshape(fields["shape"])
                zeros = np.zeros_like(value)
                self._values[fields["id"]] = Held("masked", [zeros] * self._n, value), zeros
            elif verb == "save" and entry.receiver == first:
                self._settle(fields["counts"], drop=False)
                self._save(**fields)
            elif verb == "load" and entry.receiver == first:
                self._load(**fields)
        self._requests.finish()

    def _settle(self, counts, drop=True):
        for address in counts:
            self._values |= self._unsettled.pop(address, {})
        if drop:
            self._unsettled.clear()

    def _run(self, epoch, run, attempt, program, key, inputs, outputs, counts, delete, to, **_):
        roster, address = self.roster, (run, attempt)
        self._settle(counts)
        for id in delete:
            self._values.pop(id, None)
        if key is not None:
            self._programs[program] = Program(key)
        program = self._programs[program]
        if program.widest > self._widest:
            self._find(
                "messages", f"a zone of {program.widest} bits, which tells the provider more"
            )
        if min(program.sigmas, default=FINE) < FINE:
            self._find("messages", "noise of too few integers")
        held, masks = zip(*map(self._values.get, inputs), strict=True) if inputs else ((), ())
        draws = self._draws(program, epoch, address)
        for worker, words in zip(roster.workers, draws, strict=True):
            self._note_drawn(words, roster.provider, worker)
        deal = Deal(program, masks, draws)
        about = {"run": run, "attempt": attempt}
        if program.corrections:
            last, corrections = roster.workers[-1], deal.corrections.tobytes()
            self._expected.say(roster.provider, last, "deal", **about, corrections=corrections)
        self.noises.begin(address, counts)
        done = Attempt(program, held, deal, self.noises)
        self._requests.is_broken_off = done.flagged
        self.secrets |= {(address, *where): secret for where, secret in done.secrets.items()}
        self._expect_rounds(about, done)
        if not done.flagged:
            known = [deal.known[register] for register in program.outputs]
            pairs = zip(done.outputs, known, strict=True)
            self._unsettled[address] = dict(zip(outputs, pairs, strict=True))
            clear = map(_clear, held, masks)
            read = dict(zip(inputs, clear, strict=True))
            self.runs.append(Ran(address, to, read, total(done.revealed)))
        self._expect_end(about, done, to)

    def _expect_rounds(self, about, done):
        workers = self.roster.workers
        for number, said in enumerate(done.said, start=1):
            for worker, (words, bits) in zip(workers, said, strict=True):
                fields = {**about, "round": number, "words": words.tobytes()}
                for other in self.roster.others(worker):
                    self._expected.say(worker, other, "open", **fields, bits=bits.tobytes())

    def _expect_end(self, about, done, to):
        orchestrator = self.roster.orchestrator
        for worker, revealed in zip(self.roster.workers, done.revealed, strict=True):
            if done.flagged:
                self._expected.say(worker, orchestrator, "anew", **about)
                continue
            if to is not None:
                self._expected.say(worker, to, "revealed", **about, revealed=revealed.tobytes())
            here = b"" if to is not None else revealed.tobytes()
            self._expected.say(worker, orchestrator, "result", **about, revealed=here)
        if to is not None and not done.flagged:
            self._expected.say(to, orchestrator, "read", **about)

    def _expect_ahead(self, epoch):
        """What was dealt ahead, under a plan, for a run that came at another address: by the size
        of one of its programs, and of words of its own. (Under what masks, nobody says.)"""
        provider, last = self.roster.provider, self.roster.workers[-1]
        drawn = Counter(map(_digest, self._drawn(provider)))
        for _, fields in self._said(provider, last):
            address = fields.get("run"), fields.get("attempt")
            if not self._requests.is_passed_over(address):
                continue
            for program in self._programs.values():
                if 8 * program.corrections != len(fields["corrections"]):
                    continue
                draws = self._draws(program, epoch, address)
                if not Counter(map(_digest, draws)) - drawn:
                    self._words[provider] += draws
                    self._expected.say(provider, last, **fields)
                    break

    # ---- checkpoints

    def _save(self, run_id, step, ids, **_):
        every = zip(*(unmasked(self._values[id][0]) for id in ids), strict=True)
        for worker, shares in zip(self.roster.workers, every, strict=True):
            self._expected.say(worker, self.roster.orchestrator, "done", step=step)
            about = {"worker": worker, "about": {"run": run_id, "step": step}}
            expected = about | {
                "shapes": [list(share.shape) for share in shares],
                "shares": b"".join(share.tobytes() for share in shares),
            }
            content = self._next_file(self._files, worker)
            for line in files.differences(content, expected, self._has_plan):
                self._find("files", f"{worker}, step {step}: {line}")
            self.written[worker, run_id, step] = content

    def _load(self, run_id, step, ids, shapes):
        parts = []
        for worker in self.roster.workers:
            self._expected.say(worker, self.roster.orchestrator, "done", step=step)
            kept = self._next_file(self._kept, worker)
            known = self.written.get((worker, run_id, step))
            if known is not None and files.shares_in(known) != kept:
                self._find("files", f"{worker} reads another step {step} than it wrote")
            kept = np.frombuffer(kept, RAW)
            sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
            pieces = np.split(kept, np.cumsum(sizes)[:-1])
            parts.append([p.reshape(s) for p, s in zip(pieces, shapes, strict=True)])
        for id, *shares in zip(ids, *parts, strict=True):
            self._values[id] = Held("share", shares), np.zeros_like(shares[0])

    def _next_file(self, files_, worker):
        """The content of the next file that a worker writes, or reads; None: there is none."""
        entries = files_[worker]
        return self._views[worker].value(entries.pop(0)).tobytes() if entries else None

    # ---- what was said, and drawn

    def _compare_files(self, to_the_end):
        """Whether there are more than were asked for."""
        more = [worker for left in (self._files, self._kept) for worker in left if left[worker]]
        if more and to_the_end:
            self._find("files", f"{', '.join(more)}: files that nobody has asked for")

    def _compare_words(self, to_the_end):
        for party in self._views:
            drawn = self._drawn(party)
            found = Counter(map(_digest, drawn))
            expected = Counter(map(_digest, self._words.get(party, [])))
            more, less = (sum(x.values()) for x in (found - expected, expected - found))
            if more and to_the_end:
                of = f"{more} of its {len(drawn)} draws"
                self._find("streams", f"{party}: {of} are of no stream that it has, or serve twice")
            if less:
                self._find("streams", f"{party}: {less} draws are missing")

    def _compare_noise(self, to_the_end):
        """Whether all noise is made of words under keys that nobody else has, each used once."""
        for worker in self.roster.workers:
            view, key, serves, had = self._views[worker], None, 0, 0
            for entry in view.arrays("drawn"):
                drawn, right = view.value(entry), True
                if entry.name == "urandom":
                    key, serves = self._own_key(worker, drawn.tobytes()), 0
                elif entry.name == NOISE_WORDS:
                    stream = key and streams.words(key, streams.NOISE, (serves, 0), drawn.size)
                    right, serves, had = np.array_equal(stream, drawn), serves + 1, had + drawn.size
                elif entry.name == NOISE:
                    right, had = had > drawn.size, 0  # more than a word for each element
                if not right:
                    self._find("streams", f"{worker}: its noise is of no key of its own")
                    break
        made = [x for w in self.roster.workers for x in self._drawn(w, NOISE) if x.size > 1]
        if len(set(map(_digest, made))) < len(made):
            self._find("streams", "noise serves twice, or at two workers")
        if (more := self.noises.unused()) and to_the_end:
            self._find("streams", f"{more} times noise is drawn that nobody has asked for")

    def _own_key(self, worker, key):
        """A key that a worker has drawn for its noise."""
        if len(key) != 32 or key in self.keys:
            self._find("keys", f"{worker}: the key of its noise is not its own")
        self.keys.add(key)
        return key

    def _compare_keys(self):
        view = self._views[self.roster.provider]
        drawn = [view.value(e).tobytes() for e in view.arrays("drawn", name="urandom")]
        sent = [key for keys in self._keys.values() for key in keys]
        if len(drawn) > len(sent):
            self._find("keys", f"{len(drawn)} keys are drawn for {len(sent)}")
        for key in sent:
            if len(key) != 32 or drawn.count(key) != 1 or sent.count(key) != 1:
                self._find("keys", "a key is not what the operating system gave, or serves twice")


def _clear(value, mask):
    """What is held so, all shares together."""
    return total(value.parts) if value.form == "share" else value.delta + mask


def _digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8)).digest()
