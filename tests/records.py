"""What a run has left in run.json, once it was found to be as docs/run.schema.json says."""

import json
import pathlib

import jsonschema

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
SCHEMA = jsonschema.Draft202012Validator(json.loads((DOCS / "run.schema.json").read_text()))


def read(folder):
    """The record in a folder of results.

    Raises:
        jsonschema.ValidationError: it is not as the document says.
    """
    record = json.loads((folder / "run.json").read_text())
    SCHEMA.validate(record)
    return record
