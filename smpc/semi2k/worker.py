"""A worker's end: a state machine without input or output.

A message comes in, from a party that the channel vouches for; messages go out, each to a named
party. The end runs the orchestrator's programs on the values that it stores, with what the provider
deals, and speaks to the other workers round by round.

Whatever goes wrong in a run ends that run and nothing else: its outputs are kept under its name,
(run, attempt), until the orchestrator says that this attempt counts, and a later run takes its
place.
"""

import collections
import hashlib

import numpy as np

from smpc.semi2k import arithmetic, storage, wire
from smpc.semi2k.arithmetic import Flagged, Masked
from smpc.semi2k.noise import Noise
from smpc.semi2k.owner import check_label
from smpc.semi2k.randomness import Stream
from smpc.semi2k.run import (
    FAILURES,
    Order,
    Run,
    count,
    is_made,
    order_of,
    own,
    settle,
    take,
)
from smpc.semi2k.wire import Refused, pack, raw, split, words

_EMPTY = np.empty(0, np.uint64)
MOST_DEALT = 8  # runs that it may be dealt for before they are asked for


class Worker:
    """A worker's end.

    Args:
        id: its name; `roster`: everybody's.
    Attributes:
        values: what it stores, by number: a share (an array) or `Masked`.
        unsettled: (run, attempt) -> number -> such a value, of runs that may yet not count.
        folder: of its checkpoints, a pathlib.Path; its own affair, and in no message.
        consent: to what it runs and reveals, a `smpc.hosts.plans.Consent`; None: to all.
        labels: what the values that a plan speaks of are, by number.
    """

    ROLE = wire.WORKER
    RUN = Run  # what makes a run; the audit has its own, which takes notes

    def __init__(self, id, roster):
        self.id, self.roster = id, roster
        self.party = roster.workers.index(id)
        self.is_last = self.party == len(roster.workers) - 1
        self.values, self.unsettled, self.programs = {}, {}, {}
        self.folder, self._named = None, -1  # the last value that was loaded, or made public
        self.consent, self.labels = None, {}
        self._stream, self._input_streams, self._keys = None, {}, set()
        self._noise = Noise()
        # of the last worker: (owner, share) -> {which: half}, and (owner, which) -> the last share
        self._half_inputs, self._halves_had = {}, {}
        self._latest = (-1, 0)  # the address of a run
        # addresses of runs that followed each other, with others between them that none will have
        self._skipped = collections.deque(maxlen=MOST_DEALT)
        self._forget_run()

    @property
    def has_key(self):
        """Whether it has a key from the crypto provider, without which it can take nothing else."""
        return self._stream is not None

    def _forget_run(self):
        self.run = self._order = None  # the Run, and the `Order` for it
        self._made = {}  # the labels of what it makes
        self._round, self._asked, self._dealt = 0, None, {}
        self._heard = {}  # (address, round) -> worker -> (words, bits)

    def receive(self, sender, message):
        """Take a message.

        Returns:
            a list of (receiver, message).
        Raises:
            Refused: the message is not one that this sender may send, or now; nothing has changed.
                If it came of a run it is the run that is over.
        """
        verb, fields = wire.read(message, self.roster.role(sender), self.ROLE)
        with np.errstate(over="ignore"):  # numpy warns of the wrap of a scalar, not of an array's
            return getattr(self, f"_{verb}")(sender, **fields)

    # ---- from the crypto provider

    def _key(self, sender, key):
        """The key of the stream shared with the provider; what was dealt under another is void."""
        if key in self._keys:
            raise Refused(f"{self.id} has had this key already")
        self._keys.add(key)
        self._stream, self._noise = Stream(key, "runs"), Noise()
        self._input_streams = {o: Stream(key, f"inputs of {o}") for o in self.roster.owners}
        self._half_inputs = {}
        self._forget_run()
        return []

    def _deal(self, sender, run, attempt, corrections):
        """The corrections of a run: what of derived fields is not drawn."""
        address = run, attempt
        if any(before < address < after for before, after in self._skipped):
            return []  # dealt ahead, and void since another run came before
        begun = address == self._latest and (self._order is None or self.run is not None)
        if not self.is_last or address < self._latest or begun or address in self._dealt:
            raise Refused(f"{self.id} was dealt for run {run}, {attempt} already, or never is")
        if len(self._dealt) == MOST_DEALT:
            del self._dealt[min(self._dealt)]
        self._dealt[address] = corrections
        return self._go_on()

    def _deal_input(self, sender, owner, share, corrections):
        """What makes up the last worker's shares of the mask of an owner's value."""
        if not self.is_last or owner not in self.roster.owners:
            raise Refused(f"{self.id} is dealt no masks of {owner}")
        return self._half_input(owner, share, "corrections", corrections)

    # ---- from owners of data

    def _input(self, sender, share, id, shape, label, delta):
        """A value under a mask; all but the last worker draw their shares of the mask."""
        if self._is_taken(id) or self._stream is None:
            raise Refused(f"value {id} is there already, or {self.id} has no key yet")
        check_label(sender, label)
        (delta,) = split(words(delta), [shape])
        if self.is_last:
            self.labels[id] = label
            return self._half_input(sender, share, "delta", (id, delta))
        stream = self._input_streams[sender]
        if (share, 0) <= stream.last:
            raise Refused(f"{sender} has shared {share} already")
        self.values[id] = Masked(delta, stream.words((share, 0), delta.size).reshape(shape))
        self.labels[id] = label
        return self._go_on()

    def _half_input(self, owner, share, which, half):
        """The two halves of the last worker's part of an input may come in either order."""
        halves = self._half_inputs.get((owner, share), {})
        if share <= self._halves_had.get((owner, which), -1):
            raise Refused(f"{owner} has shared {share} already")
        halves = {**halves, which: half}
        if len(halves) == 1:
            self._half_inputs[owner, share] = halves
        else:
            id, delta = halves["delta"]
            (a,) = split(words(halves["corrections"]), [delta.shape])
            del self._half_inputs[owner, share]
            self.values[id] = Masked(delta, a)
        self._halves_had[owner, which] = share
        return self._go_on()

    # ---- from the orchestrator

    def _public(self, sender, id, shape, values):
        """A value that everybody knows, such as weights that nobody has trained yet."""
        if id <= self._named or self._is_taken(id):
            raise Refused(f"value {id} is there already, or was")
        (delta,) = split(words(values), [shape])
        self._named, self.values[id] = id, Masked(delta, np.zeros(shape, np.uint64))
        self.labels[id] = label_of(values)
        return self._go_on()

    def _save(self, sender, run_id, step, ids, counts, keep):
        """Write this worker's shares to a file of its own, and remove older ones but step `keep`.

        Raises:
            OSError: it cannot be written.
        """
        self._check_folder()
        count(self.values, self.unsettled, counts)
        self._check_ids(ids)
        labels = [self.labels.get(id) for id in ids]
        if self.consent is not None:
            self.consent.check_save(labels)
        shares = [self.share(id) for id in ids]
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in self.folder.glob("*.shares*"):  # also what a broken-off write has left
            if file.name != f"{keep}.shares":
                file.unlink()
        fields = {"worker": self.id, "about": {"run": run_id, "step": step}}
        fields |= {"shapes": [share.shape for share in shares], "shares": bytes(raw(shares))}
        if self.consent is not None:
            fields["labels"] = labels
            self.consent.save(step, keep)
        storage.write(self.folder / f"{step}.shares", fields)
        return [(sender, pack("done", step=step))]

    def _load(self, sender, run_id, step, ids, shapes):
        """Store the shares that `_save` wrote, under the ids given.

        Raises:
            CheckpointError: the file is missing, damaged, or of another party, run or model.
        """
        self._check_folder()
        known = [id for id in ids if id <= self._named or self._is_taken(id)]
        if known or not len(set(ids)) == len(ids) == len(shapes):
            raise Refused("a load names each value once, and none that was there before")
        file = self.folder / f"{step}.shares"
        fields = storage.read(file)
        if fields["worker"] != self.id:
            raise storage.CheckpointError(f"{file} holds shares of {fields['worker']}")
        if fields["about"] != {"run": run_id, "step": step}:
            raise storage.CheckpointError(f"{file} is of another run")
        if fields["shapes"] != [list(shape) for shape in shapes]:
            raise storage.CheckpointError(f"{file} is of another model")
        if self.consent is not None:
            self.consent.load(step)
            self.labels |= zip(ids, fields["labels"], strict=True)
        for id, share in zip(ids, split(words(fields["shares"]), shapes), strict=True):
            self.values[id] = np.array(share)
        self._named = max(ids, default=self._named)
        return [(sender, pack("done", step=step))]

    def share(self, id):
        """This worker's additive share of a stored value; its party 0 adds what is public.

        Raises:
            Refused: of its mask the workers hold no shares.
        """
        value = self.values[id]
        if not isinstance(value, Masked):
            return value
        if value.a is None:
            raise Refused(f"{self.id} has no share of the mask of value {id}")
        return arithmetic.unmask(self.party, value)

    @property
    def _halves(self):
        """The numbers of the values of which one half has come."""
        return {half["delta"][0] for half in self._half_inputs.values() if "delta" in half}

    def _is_taken(self, id):
        """Whether a value goes by this number, or will: whatever came under it besides, what one
        of them is could be said of the other."""
        known = self.values.keys() | self._halves
        return id in known or is_made(id, self._order, self.unsettled)

    def _check_folder(self):
        if self.folder is None:
            raise Refused(f"{self.id} keeps no checkpoints")

    def _check_ids(self, ids):
        if not self.values.keys() >= set(ids):
            raise Refused(f"{self.id} does not store {sorted(set(ids) - self.values.keys())[:3]}")

    def _run(
        self, sender, run, attempt, program, key, inputs, outputs, counts, delete, forget, **about
    ):
        """Start a program, once all that it needs has come; a run before it is over."""
        if (run, attempt) <= self._latest:
            raise Refused(f"run {run}, attempt {attempt}, after {self._latest}")
        if about["to"] not in (None, *self.roster.owners):
            raise Refused(f"no owner is called {about['to']}, to whom something is to be revealed")
        known = order_of(self.programs, program, key, inputs, outputs)
        settle(self.values, self.unsettled, counts, delete)
        self._noise.begin((run, attempt), counts)
        for id in delete:
            self.labels.pop(id, None)
        for name in forget:
            self.programs.pop(name, None)
        self.programs[program] = known
        if run > self._latest[0] + 1:
            self._skipped.append((self._latest, (run, attempt)))
        self.run, self._latest = None, (run, attempt)
        self._order = Order(sender, self._latest, program, known, inputs, outputs, **about)
        self._dealt = {a: dealt for a, dealt in self._dealt.items() if a >= self._latest}
        kept = {where: heard for where, heard in self._heard.items() if where[0] >= self._latest}
        self._heard, self._round = kept, 0
        return self._go_on()

    # ---- a run

    def _go_on(self):
        """Start the run that was asked for if all is there, and each round that has been heard."""
        if self._order is None:
            return []
        out = []
        try:
            if self.run is None:
                self._start(out)
            else:
                self._next_rounds(out)
        except Flagged:  # the others need what this end has said before, to find the same
            orchestrator, (run, attempt) = self._order.sender, self._latest
            if self.consent is not None:
                self.consent.anew(self._order)
            self.run = self._order = None
            out.append((orchestrator, pack("anew", run=run, attempt=attempt)))
        except FAILURES as error:
            self.run = self._order = None
            raise Refused(f"{self.id} cannot compute run {self._latest}: {error}") from error
        except BaseException:  # whatever it is, this end is ready for the next run
            self.run = self._order = None
            raise
        return out

    def _start(self, out):
        """Start the run if all is there, and add to `out` what it says."""
        program, inputs = self._order.program, self._order.inputs
        if not self.values.keys() >= set(inputs) or (
            self.is_last and program.corrections and self._latest not in self._dealt
        ):
            return
        values = [self.values[id] for id in inputs]
        _check_forms(program, values)
        known = self.values.keys() | self._halves
        self._made = self._order.check(self.consent, self.labels, known)
        corrections = words(self._dealt.pop(self._latest, b"")) if self.is_last else None
        drawn = self._stream.words(
            self._latest, program.drawn + (0 if self.is_last else program.corrections)
        )
        deals = take(program, drawn, corrections)
        self.run = self.RUN(self.party, program, deals, values, self._noise)
        self._say(out)
        self._next_rounds(out)

    def _say(self, out):
        """Add to `out` what the run asks to have opened in this round; or its end."""
        run, attempt = self._latest
        if self.run.finished:
            out += self._finish()
            return
        self._round += 1
        self._asked = [np.concatenate([_EMPTY, *map(np.ravel, asks)]) for asks in self.run.asks()]
        message = pack(
            *("open",),
            run=run,
            attempt=attempt,
            round=self._round,
            words=raw([self._asked[0]]),
            bits=raw([self._asked[1]]),
        )
        out += [(other, message) for other in self.roster.others(self.id)]

    def _next_rounds(self, out):
        """Go on as long as all others have been heard, and add to `out` what is said."""
        while self.run is not None:
            heard = self._heard.get((self._latest, self._round), {})
            if len(heard) < len(self.roster.workers) - 1:
                break
            del self._heard[self._latest, self._round]
            opened, bits = self._asked
            for other, (words_, bits_) in heard.items():
                if (words_.size, bits_.size) != (opened.size, bits.size):
                    raise Refused(f"{other} opens {words_.size} words, and {bits_.size} of bits")
                opened = opened + words_
                bits = bits ^ bits_
            self.run.resume(opened, bits)
            self._say(out)

    def _open(self, sender, run, attempt, round, words, bits):
        """Another worker's shares of what is opened in a round; it may be one round ahead."""
        where = (run, attempt), round
        active = self.run is not None and where[0] == self._latest
        expected = (self._round, self._round + 1) if active else (1,)
        past = where[0] < self._latest or (where[0] == self._latest and self._order is None)
        heard = self._heard.setdefault(where, {})
        if past or round not in expected or sender in heard:
            self._heard = {w: h for w, h in self._heard.items() if h}
            raise Refused(f"{sender} opens round {round} of run {run}, {attempt} out of turn")
        for other, said in [*self._heard.items()]:  # of a run to come each has said one thing
            if other[0] > self._latest and other != where:
                said.pop(sender, None)
        heard[sender] = wire.words(words), wire.words(bits)
        self._heard = {w: h for w, h in self._heard.items() if h}
        return self._go_on()

    def _finish(self):
        """What it says at the end of a run, to the orchestrator and who gets what is revealed."""
        order, (run, attempt) = self._order, self._latest
        kept = self.unsettled[self._latest] = {}
        for register, id in zip(order.program.outputs, order.outputs, strict=True):
            kept[id] = own(self.run.registers[register])
        self.labels |= self._made
        revealed = raw(self.run.revealed)
        if self.consent is not None:
            self.consent.reveal(order, len(revealed) // 8)
        self.run = self._order = None
        about = {"run": run, "attempt": attempt}
        if order.to is None:
            return [(order.sender, pack("result", **about, revealed=revealed))]
        return [
            (order.to, pack("revealed", **about, revealed=revealed)),
            (order.sender, pack("result", **about, revealed=b"")),
        ]


def label_of(values):
    """What a public value is called in a plan: its SHA-256."""
    return f"public {hashlib.sha256(values).hexdigest()}"


def _check_forms(program, values):
    for (_, form, shape), value in zip(program.inputs, values, strict=True):
        array = value.delta if isinstance(value, Masked) else value
        if (form == "masked") != isinstance(value, Masked) or array.shape != shape:
            raise Refused(f"a program that takes a {form} of shape {shape} for another value")
