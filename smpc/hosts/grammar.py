"""What a plan's file may hold: nothing that cannot be shown in a line, or is not what it seems."""

import math
import re

from smpc.semi2k.randomness import MOST_RUNS
from smpc.semi2k.wire import MOST_VALUES

FORMAT = "encrypted-training plan 4"
# How many times a position after the last checkpoint may be run again, at most; in a private
# training none is, since its noise would be drawn anew.
AGAIN = 16
TRAINING, PREDICTION = "train_encrypted.py", "predict_encrypted.py"
HOSPITALS = "examples.hospitals"
# What the plan of a script is made with; whoever runs it need not say it again, and may not say
# otherwise.
ARGUMENTS = {
    TRAINING: (
        *("epochs", "n_train_items", "n_test_items", "batch_size", "test_batch_size", "lr"),
        *("seed", "log_interval", "precision_fractional", "exact_truncation", "activation"),
        *("checkpoint_every", "private", "delta", "clip", "momentum"),
    ),
    PREDICTION: ("n_test_items", "test_batch_size", "precision_fractional", "activation"),
    HOSPITALS: ("epochs", "batch_size", "test_batch_size", "lr", "seed", "precision_fractional"),
}


def _whole(x):
    return type(x) is int and 0 <= x < MOST_RUNS


def _number(x):
    return type(x) in (bool, int, float) and abs(x) < 2**63


def _above_0(x):
    return _number(x) and type(x) is not bool and x > 0


def _each(check):
    return lambda x: isinstance(x, list | tuple) and all(map(check, x))


def _maybe(check):
    return lambda x: x is None or check(x)


def _of(pattern):
    return lambda x: isinstance(x, str) and bool(re.fullmatch(pattern, x, re.ASCII))


def _map(is_key, is_value):
    return lambda x: isinstance(x, dict) and all(is_key(k) and is_value(v) for k, v in x.items())


def _table(checks):
    """Of a dict with these keys, each with a value that passes its check."""
    return lambda x: (
        isinstance(x, dict)
        and x.keys() == checks.keys()
        and all(check(x[name]) for name, check in checks.items())
    )


def _layer(x):
    return _each(_whole)(x) and len(x) == 2 and math.prod(x) <= MOST_VALUES


def _position(x):
    return isinstance(x, list) and x and _whole(x[0]) and _each(_of(_ITEMS))(x[1:])


_NAME, _SHA256, _NUMBER = "[a-z][a-z0-9-]{0,63}", "[0-9a-f]{64}", "[0-9]{1,9}"
_ITEMS = f"{_NAME} (train|test|predict|model) {_NUMBER}:{_NUMBER}"
_WHERE = "|".join(
    (
        rf"-[1-9][0-9]{{0,8}}\.{_NUMBER}",
        f"{_NUMBER} [a-z0-9_.]{{1,40}}, {_NUMBER} digits",
        f"public {_SHA256}",
    )
)
_PROGRAM = _of("[0-9a-f]{32}")
_KEPT = _each(_maybe(_whole))
_ROW = {
    "program": _PROGRAM,
    "inputs": _each(_of(_WHERE)),
    "outputs": _KEPT,
    "to": _maybe(_of(_NAME)),
}
_FIELDS = {
    "format": lambda x: x == FORMAT,
    "script": lambda x: x in tuple(ARGUMENTS),
    "nonce": _of("[0-9a-f]{32}"),
    "parties": _map(_of(_NAME), _of(_SHA256)),
    "again": lambda x: _whole(x) and x <= AGAIN,
    "programs": _map(_PROGRAM, lambda x: isinstance(x, str)),
    "rows": _each(_table(_ROW)),
    "positions": _each(_position),
    "restore": _each(_table({"program": _PROGRAM, "outputs": _KEPT})),
}


_SEED = {"seed": lambda x: type(x) is int and 0 <= x < 2**63}
_KINDS = _SEED | {
    "lr": _each(_number),
    "activation": _of("[a-z]{1,20}"),
    "exact_truncation": lambda x: type(x) is bool,
    "save_model": lambda x: type(x) is bool,
    "private": _maybe(_above_0),
    "delta": _above_0,
    "clip": _above_0,
    "momentum": lambda x: _number(x) and 0 <= x < 1,
}


def _arguments(*names, **kinds):
    """Of those that have no kind of their own each is a count."""
    kinds = _KINDS | kinds
    return _table({name: kinds.get(name, lambda x: _whole(x) and x > 0) for name in names})


_WEIGHTS = _table(
    _SEED
    | {
        "digits": _whole,
        "drawn": lambda x: _whole(x) and x <= MOST_VALUES,
        "linear": _each(_layer),
    }
)

# What a private training guarantees: see `smpc.privacy.accounting.Guarantee`; "workers": how many
# add noise.
_GUARANTEE = _table(
    dict.fromkeys(("epsilon", "delta", "of_worker", "noise_multiplier", "clip"), _above_0)
    | dict.fromkeys(("workers", "epochs", "steps", "coordinates"), lambda x: _whole(x) and x > 0)
    | {"correlation": _each(_whole)}
)


def _nothing(x):
    return x is None


# By the script that it is for; "weights": public ones, from which a training starts.
_FIELDS_OF = {
    TRAINING: {
        "arguments": _arguments(*ARGUMENTS[TRAINING], "save_model"),
        "weights": _WEIGHTS,
        "guarantee": _maybe(_GUARANTEE),
    },
    PREDICTION: {
        "arguments": _arguments(*ARGUMENTS[PREDICTION]),
        "weights": _nothing,
        "guarantee": _nothing,
    },
    HOSPITALS: {
        "arguments": _arguments(
            *ARGUMENTS[HOSPITALS], "save_model", lr=lambda x: _number(x) and x > 0
        ),
        "weights": _WEIGHTS,
        "guarantee": _nothing,
    },
}


def check(content):
    """Check what a plan's file holds, but for its programs.

    Raises:
        ValueError: it is not well-formed; the message is a line.
    """
    names = (*_FIELDS, *_FIELDS_OF[TRAINING])
    if not isinstance(content, dict) or content.keys() != set(names):
        raise ValueError(f"it is to have the fields {', '.join(names)}")
    _check(content, _FIELDS)
    _check(content, _FIELDS_OF[content["script"]])


def _check(content, fields):
    for name, passes in fields.items():
        if not passes(content[name]):
            raise ValueError(f"its {name} is malformed, out of range, or of another version")
