"""What a worker keeps in its checkpoint, byte by byte.

A file is a msgpack map, followed by its SHA-256. What is in it is the worker's own additive shares
of the values that it was asked to save, and what they are called: nothing else has a place.
"""

import hashlib
import re

import msgpack

FORMAT = "semi2k checkpoint 2"
FIELDS = ("format", "worker", "about", "shapes", "shares")


# What a value is called there: output j of position i, or what is public.
LABEL = r"\d{1,9}\.\d{1,4}|public [0-9a-f]{64}"


def differences(content, expected, has_plan):
    """Lines for each way in which a file is not what it is to be.

    Args:
        content: its bytes, or None where there is none.
        expected: the fields that it has besides its format.
        has_plan: whether it may have labels, too: where the parties follow a plan.
    """
    if content is None:
        return ["nothing is written"]
    body, digest = content[:-32], content[-32:]
    if hashlib.sha256(body).digest() != digest:
        return ["what is written does not end with its SHA-256"]
    fields = msgpack.unpackb(body)
    names = [*FIELDS, "labels"] if "labels" in fields else [*FIELDS]
    if list(fields) != names or msgpack.packb(fields) != body:
        return ["more is written than has a place in it"]
    labels = fields.get("labels", [])
    found = [] if fields["format"] == FORMAT else ["its format is another"]
    if not all(has_plan and re.fullmatch(LABEL, str(label)) for label in labels):
        found.append("its labels are none")
    return found + [f"its {name} is another" for name in expected if fields[name] != expected[name]]


def shares_in(content):
    """The raw words of the shares in a file."""
    return msgpack.unpackb(content[:-32])["shares"]
