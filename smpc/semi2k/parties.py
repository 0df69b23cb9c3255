"""What runs at the parties: a worker's and the crypto provider's end of the messages.

A message is a msgpack map, whose arrays are raw bytes; nothing is pickled. Each end answers a
request with a reply, and can run in a process of its own.
"""

import math
import pathlib

import msgpack
import numpy as np
import torch

from smpc.semi2k import arithmetic, comparison, ring, storage
from smpc.semi2k.arithmetic import TIMES, Bits
from smpc.semi2k.program import LOCAL, MOVES, Program
from smpc.semi2k.randomness import Stream, new_key


def pack(**fields):
    """A message: names to numbers, strings, bytes, arrays' memory, and lists and maps of such."""
    return msgpack.packb(fields)


def unpack(message):
    """The fields of a message made by `pack`."""
    return msgpack.unpackb(message, use_list=False, strict_map_key=False)


def raw(arrays):
    """uint64 arrays, one after the other, as one buffer without a copy where there is but one."""
    flat = [np.ravel(array) for array in arrays]
    joined = flat[0] if len(flat) == 1 else np.concatenate([np.empty(0, np.uint64), *flat])
    return joined.view(np.uint8).data


def words(buffer):
    """The inverse: the uint64 array (n,) that `buffer` holds."""
    return np.frombuffer(buffer, dtype=np.uint64)


def split(flat, arrays):
    """Cut `flat` into pieces of the sizes and shapes of `arrays`."""
    pieces, start = [], 0
    for array in arrays:
        pieces.append(flat[start : start + array.size].reshape(array.shape))
        start += array.size
    if start != flat.size:
        raise RuntimeError(f"{flat.size} words were opened where {start} were asked for")
    return pieces


class Run:
    """One party's run of a program: computes until it needs something opened, then asks.

    Args:
        party: 0 or 1.
        program: a `Program`.
        deals: for each instruction, a dict of this party's shares of its dealt item, or None.
        registers: the shares, masked values and public arrays that it starts from.
    """

    def __init__(self, party, program, deals, registers):
        self.party, self.program, self.deals, self.registers = party, program, deals, registers
        self.needs = list(program.needs)
        self.waiting = []  # (instruction number, its generator, what it asked for)
        self.revealed = []  # since the last round
        self.ready = [number for number, needs in enumerate(self.needs) if not needs]
        self._compute()

    @property
    def finished(self):
        """Whether nothing waits for an opening any more."""
        return not self.waiting

    def asks(self):
        """(words, bits): what this party wants opened in this round, each a list of arrays."""
        asked = [ask for _, _, ask in self.waiting]
        return (
            [ask for ask in asked if not isinstance(ask, Bits)],
            [ask.words for ask in asked if isinstance(ask, Bits)],
        )

    def resume(self, opened_words, opened_bits):
        """Go on with what has been opened, flat uint64 arrays in the order of `asks`."""
        words_asked, bits_asked = self.asks()
        opened = {
            False: iter(split(opened_words, words_asked)),
            True: iter(split(opened_bits, bits_asked)),
        }
        waiting, self.waiting = self.waiting, []
        for number, generator, ask in waiting:
            self._step(number, generator, next(opened[isinstance(ask, Bits)]))
        self._compute()

    def _compute(self):
        while self.ready:
            number = self.ready.pop()
            op, _, ins, params = self.program.instructions[number]
            arguments = [self.registers[register] for register in ins]
            result = self._start(op, arguments, params, self.deals[number])
            if hasattr(result, "send"):
                self._step(number, result, None)
            else:
                self._done(number, result)

    def _step(self, number, generator, opened):
        try:
            self.waiting.append((number, generator, generator.send(opened)))
        except StopIteration as finished:
            self._done(number, finished.value)

    def _done(self, number, result):
        outs = self.program.instructions[number].outs
        results = result if len(outs) == 2 else (result,)
        for register, value in zip(outs, results, strict=False):
            self.registers[register] = value
            for user in self.program.users.get(register, ()):
                self.needs[user] -= 1
                if not self.needs[user]:
                    self.ready.append(user)

    def _start(self, op, arguments, params, deal):
        party = self.party
        if op in LOCAL:
            return LOCAL[op](*arguments, *params)
        match op:
            case "move":
                return arguments[0].map(lambda x: MOVES[params[0]](x, *params[1:]))
            case "mask":
                return arithmetic.mask(party, deal, *arguments)
            case "product":
                return arithmetic.product(party, deal, *arguments, TIMES[params[0]])
            case "truncate":
                return arithmetic.truncate(party, deal, *arguments, params[1])
            case "above_zero":
                return comparison.above_zero(party, deal, *arguments)
            case "unmask":
                return arithmetic.unmask(party, *arguments)
            case "shared":
                return arguments[0] if party == 0 else np.zeros_like(arguments[0])
            case "add_public":
                return arithmetic.add_public(party, *arguments)
            case "add_constant":
                value, shape = params
                return arithmetic.add_public(
                    party, *arguments, np.broadcast_to(np.uint64(value), shape)
                )
            case "matmul_public":
                secret, public = arguments
                return ring.matmul((public, secret) if params[0] else (secret, public))
            case "refresh":
                return arithmetic.refresh(party, deal, *arguments)
            case "reveal":
                self.revealed.append(arithmetic.refresh(party, deal, *arguments))
                return None
        raise RuntimeError(f"no such instruction: {op}")


class Worker:
    """A worker's end: its stream of randomness, the program that it is running, masked values.

    The shares themselves live in the object store of `worker`, a syft worker, under the ids that
    the pointers of an AdditiveSharingTensor name.
    """

    def __init__(self, worker):
        self.worker = worker
        self.party = self.stream = self.run = None
        self.serial = 0  # of the last run
        self.programs = {}
        self.masked = {}  # id of a stored share -> Masked
        self.dealt = {}  # worker2: serial of a run -> (words it will draw, corrections)

    def receive(self, message):
        """Answer a request; its field `do` names the method."""
        fields = unpack(message)
        with np.errstate(over="ignore"):  # numpy warns of the wrap of a scalar, not of an array's
            return getattr(self, f"do_{fields.pop('do')}")(**fields)

    def do_key(self, party, key):
        """From the crypto provider: which party this is, and the key of the stream they share."""
        self.party, self.stream = party, Stream(key)

    def do_deal(self, serial, position, corrections):
        """From the crypto provider: the corrections of a run to come."""
        if position != self.stream.position + sum(size for size, _ in self.dealt.values()):
            raise RuntimeError(f"run {serial} was dealt from another position of the stream")
        drawn, corrections = corrections
        self.dealt[serial] = drawn, words(corrections)

    def do_store(self, id, shape, share):
        """From a data owner: a share of one of its values."""
        self._store(id, words(share).reshape(shape))

    def do_save(self, ids, folder, about, keep):
        """Write this worker's shares to a file of its own, and remove older ones but step `keep`.

        The reply to this and to `do_load` is empty.
        """
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*.shares*"):  # also what a broken-off write has left
            if file.name != f"{keep}.shares":
                file.unlink()
        shares = [self._load(id) for id in ids]
        fields = {"worker": self.worker.id, "about": about, "shapes": [s.shape for s in shares]}
        storage.write(folder / f"{about['step']}.shares", fields | {"shares": bytes(raw(shares))})

    def do_load(self, ids, folder, about, shapes):
        """Store the shares that `do_save` wrote, under the ids given.

        Raises:
            CheckpointError: the file is missing, damaged, or of another party, run or model.
        """
        file = pathlib.Path(folder) / f"{about['step']}.shares"
        fields = storage.read(file)
        if fields["worker"] != self.worker.id:
            raise storage.CheckpointError(f"{file} holds shares of {fields['worker']}")
        if fields["about"] != about:
            raise storage.CheckpointError(f"{file} is of another run")
        if fields["shapes"] != [list(shape) for shape in shapes]:
            raise storage.CheckpointError(f"{file} is of another model")
        blank = [np.broadcast_to(np.uint64(0), shape) for shape in shapes]
        for id, share in zip(ids, split(words(fields["shares"]), blank), strict=True):
            self._store(id, share)

    def do_delete(self, ids):
        """Forget shares, and the masks that die with them."""
        for id in ids:
            self.worker.object_store.rm_obj(id)
            self.masked.pop(id, None)

    def do_run(self, serial, program, key, inputs, outputs, constants, delete):
        """Start a program (sent as `key` the first time); the reply is what it asks in round 1."""
        if self.run is not None or serial <= self.serial:
            raise RuntimeError(f"run {serial} after run {self.serial}: what is dealt serves once")
        self.serial = serial
        self.do_delete(delete)
        if key is not None:
            self.programs[program] = Program(key)
        program = self.programs[program]
        registers = dict(zip(program.inputs, map(self._load, inputs), strict=True))
        for register, index in program.masked_inputs:
            registers[register] = self.masked[inputs[index]]
        for register, (shape, values) in zip(program.constants, constants, strict=True):
            registers[register] = words(values).reshape(shape)
        self.run = Run(self.party, program, self._take(serial, program), registers)
        self.ids = inputs, outputs
        return self._reply()

    def do_open(self, words_, bits):
        """Go on with what the last round opened; the reply is what this round asks."""
        self.run.resume(words(words_), words(bits))
        return self._reply()

    def _reply(self):
        asked_words, asked_bits = self.run.asks()
        revealed, self.run.revealed = self.run.revealed, []
        if finished := self.run.finished:
            self._finish()
        return pack(
            words=raw(asked_words), bits=raw(asked_bits), revealed=raw(revealed), finished=finished
        )

    def _finish(self):
        inputs, outputs = self.ids
        registers, program = self.run.registers, self.run.program
        for register, id in zip(program.outputs, outputs, strict=True):
            self._store(id, registers[register])
        for register, index in program.masked_outputs:
            # copies: what was drawn for this run is one array, and most of it is used up
            self.masked[inputs[index]] = registers[register].map(np.copy)
        self.run = None

    def _take(self, serial, program):
        """This party's shares of everything dealt for a run, each word of it drawn just once."""
        if self.party == 0:
            return take(program, self.stream.words(program.words), None)
        if serial not in self.dealt:
            raise RuntimeError(f"nothing is dealt for run {serial}, or it has been used")
        _, corrections = self.dealt.pop(serial)
        return take(program, self.stream.words(program.words - program.corrections), corrections)

    def _store(self, id, share):
        share = np.asarray(share)
        if share.base is not None or not share.flags.c_contiguous:
            share = np.array(share, order="C")  # not a view that keeps a larger array alive
        tensor = torch.from_numpy(share.view(np.int64))
        self.worker.object_store.register_obj(tensor, obj_id=id)

    def _load(self, id):
        return self.worker.object_store.get_obj(id).numpy().view(np.uint64)


def take(program, drawn, corrections):
    """Cut a party's words into the fields of each dealt item.

    Args:
        drawn: uniform words, for all fields (worker1), or for those that are not derived (worker2).
        corrections: worker2's shares of the derived fields, else None.
    """
    position = {False: 0, True: 0}
    taken = []
    for fields in program.fields:
        shares = None if fields is None else {}
        for (name, shape, _, derived), size in fields or ():
            corrected = derived and corrections is not None
            source, start = (corrections if corrected else drawn), position[corrected]
            shares[name] = source[start : start + size].reshape(shape)
            position[corrected] = start + size
        taken.append(shares)
    return taken


class Provider:
    """The crypto provider's end: the keys that it shares with each worker, and the masks it keeps.

    It receives programs and ids, which hold shapes, and never a share or an opened value. What it
    deals goes straight to the workers, over channels of its own.

    Args:
        provider, workers: its syft worker, and worker1 and worker2.
        network: the `Network` that carries its messages.
    """

    def __init__(self, provider, workers, network):
        self.provider, self.workers, self.network = provider, workers, network
        self.streams = None
        self.programs, self.masks = {}, {}

    def send_keys(self):
        """Make both workers' keys anew and send each its own."""
        keys = new_key(), new_key()
        self.streams = [Stream(key) for key in keys]
        for party, (worker, key) in enumerate(zip(self.workers, keys, strict=True)):
            message = pack(do="key", party=party, key=key)
            self.network.request(self.provider, worker, message, "sharing")

    def receive(self, message):
        """From the orchestrator: deal for a run. Sends worker2 the corrections; no reply."""
        with np.errstate(over="ignore"):
            corrections = self._deal(**unpack(message))
        self.network.request(self.provider, self.workers[1], corrections, "dealing")

    def _deal(self, serial, program, key, inputs, delete):
        """The message to worker2 for a run."""
        for id in delete:
            self.masks.pop(id, None)
        if key is not None:
            self.programs[program] = Program(key)
        program = self.programs[program]
        position = self.streams[1].position
        uniform = program.words - program.corrections
        mine = take(program, self.streams[0].words(program.words), None)
        blank = np.broadcast_to(np.uint64(0), program.corrections)
        theirs = take(program, self.streams[1].words(uniform), blank)
        secrets = {register: self.masks[inputs[i]] for register, i in program.masked_inputs}
        corrections = []
        for number, instruction in enumerate(program.instructions):
            if program.deals[number] is not None:
                shares = mine[number], theirs[number]
                corrections += self._derive(program, number, *shares, secrets)
            elif instruction.op == "move":
                op, *params = instruction.params
                secrets[instruction.outs[0]] = MOVES[op](secrets[instruction.ins[0]], *params)
        for register, index in program.masked_outputs:
            self.masks[inputs[index]] = secrets[register]
        return pack(
            do="deal",
            serial=serial,
            position=position,
            corrections=(uniform, raw(corrections)),
        )

    def _derive(self, program, number, one, two, secrets):
        """Worker2's shares of the derived fields of an item; notes the masks for later products."""
        instruction, deal = program.instructions[number], program.deals[number]
        fields = [field for field, _ in program.fields[number]]
        secret = {
            field.name: _combine(field, one[field.name], two[field.name])
            for field in fields
            if not field.derived
        }
        factors = [secrets[register] for register in instruction.ins if instruction.op == "product"]
        derived = deal.derive(secret, *factors)
        if instruction.op == "mask":
            secrets[instruction.outs[0]] = secret["a"]
        elif instruction.op == "above_zero":
            (shape,) = instruction.params
            for register, mask in zip(instruction.outs, (derived["rho"], secret["r"]), strict=True):
                secrets[register] = mask[: math.prod(shape)].reshape(shape)
        return [
            derived[field.name] ^ one[field.name]
            if field.boolean
            else derived[field.name] - one[field.name]
            for field in fields
            if field.derived
        ]


def _combine(field, one, two):
    return one ^ two if field.boolean else one + two
