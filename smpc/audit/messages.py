"""Messages taken apart: what is in an array, what is not, and what each array means.

It reads raw bytes as they pass a door, and makes no object of a party's.
"""

import msgpack
import numpy as np

from smpc.semi2k import wire
from smpc.semi2k.wire import Refused

# The meaning of each array in a message of semi2k's, by its verb and its field.
MEANINGS = {
    ("key", "key"): "dealt",
    ("deal", "corrections"): "dealt",
    ("deal_input", "corrections"): "dealt",
    ("input", "delta"): "share",
    ("run", "key"): "public",
    ("open", "words"): "masked",
    ("open", "bits"): "masked",
    ("result", "revealed"): "revealed",
    ("revealed", "revealed"): "revealed",
    ("public", "values"): "public",
}
NAMES = (("run", "program"), ("run", "forget"))  # of programs: bytes, and no array
# Of an array in one of syft's messages, by its command; and in the reply to it.
SYFT_ASKED = {
    "feed_crypto_primitive_store": "dealt",
    "syft.frameworks.torch.mpc.spdz.spdz_compute": "opened",
    "syft.frameworks.torch.mpc.fss.evaluate": "opened",
}
SYFT_ANSWERED = {
    "syft.frameworks.torch.mpc.spdz.spdz_mask": "masked",
    "syft.frameworks.torch.mpc.fss.mask_builder": "masked",
    "ObjectRequestMessage": "revealed",
}


OTHERWISE, MALFORMED = "otherwise", "malformed"


def split_malformed(message):
    """The same of a message that no party may say to any other."""
    value = (MALFORMED, "value", np.frombuffer(message, np.uint8))
    return MALFORMED, {"do": MALFORMED, MALFORMED: {"array": 0}}, [value]


def may_be_said(message, sender, receiver):
    """Whether a message of semi2k's may be said by one of these roles to the other."""
    try:
        wire.read(message, sender, receiver)
    except Refused:
        return False
    return True


def as_array(drawn):
    """Bytes, a tensor of torch's, or what numpy takes -> an array."""
    if isinstance(drawn, bytes):
        return np.frombuffer(drawn, np.uint8)
    return np.asarray(drawn.native_numpy() if hasattr(drawn, "native_numpy") else drawn)


def split_semi2k(message):
    """A message of semi2k's -> its verb, its fields without the arrays, and the arrays, flat.

    Raises:
        KeyError: no meaning is given to an array that it carries.
    """
    fields, arrays = msgpack.unpackb(message), []
    verb = fields["do"]
    if msgpack.packb(fields) != message:  # there is more in its bytes than in its fields
        fields[OTHERWISE] = "packed otherwise"

    def without_arrays(name, value):
        if isinstance(value, list):
            return [without_arrays(name, part) for part in value]
        if not isinstance(value, bytes):
            return value
        if (verb, name) in NAMES:
            return {"name": value.hex()}
        kind = MEANINGS[verb, name]
        dtype = np.uint8 if (verb, name) == ("run", "key") else np.uint64
        arrays.append((name, kind, np.frombuffer(value, dtype=dtype)))
        return {"array": len(arrays) - 1}

    return verb, {name: without_arrays(name, value) for name, value in fields.items()}, arrays


def join_semi2k(fields, arrays):
    """The inverse of `split_semi2k`: arrays are back in their places, lists are tuples."""
    if isinstance(fields, dict) and set(fields) == {"array"}:
        return arrays[fields["array"]].tobytes()
    if isinstance(fields, dict) and set(fields) == {"name"}:
        return bytes.fromhex(fields["name"])
    if isinstance(fields, dict):
        return {name: join_semi2k(value, arrays) for name, value in fields.items()}
    return tuple(join_semi2k(f, arrays) for f in fields) if isinstance(fields, list) else fields


def split_syft(message):
    """A message of syft's -> its command or type, the strings in it, and the tensors in it.

    Reads what would be unpickled, and makes no object of syft's: one that is made is registered,
    and one that is deleted deletes at the other end.
    """
    from syft.serde import compression
    from syft.serde.msgpack.serde import msgpack_global_state
    from syft.serde.torch.serde import torch_tensor_deserializer

    # the codes that syft_proto gives to types: a tensor with a chain is the empty wrapper of it
    string, array, tensor = 5, 8, 14
    simple = msgpack.unpackb(compression._decompress(message), use_list=False)
    strings, arrays = [], []

    def walk(part):
        match part:
            case (code, (_, bytes(pickled), None, *_)) if code == tensor:
                arrays.append(torch_tensor_deserializer(None, pickled).detach().native_numpy())
            case (code, (bytes(raw), shape, dtype)) if code == array:
                shape, dtype = shape[1], dtype[1][0].decode()
                arrays.append(np.frombuffer(raw, dtype=dtype).reshape(shape))
            case (code, (bytes(text),)) if code == string:
                strings.append(text.decode())
            case tuple():
                for inner in part:
                    walk(inner)

    walk(simple)
    kind = "nothing"
    if isinstance(simple, tuple) and simple[0] in msgpack_global_state.detailers:
        kind = msgpack_global_state.detailers[simple[0]].__qualname__.split(".")[0]
    command = kind.endswith("CommandMessage") and strings
    return (strings[0] if command else kind), strings, arrays
