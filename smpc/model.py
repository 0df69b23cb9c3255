"""A trained model in a file: a plain `state_dict`, as torch saves it, with its SHA-256.

What torch saves is a zip archive, which may end with a comment. The SHA-256 of all before it, in
hexadecimal, is the comment, so that `torch.load(path, weights_only=True)` reads the file as ever.
"""

import hashlib
import io
import pathlib
import pickle
import warnings

import torch

from smpc.files import FileError, named, regular, write_whole

COMMENT = 64  # bytes: the archive's last two before them are their number
SLACK = 1 << 20  # bytes that a file may have beside its numbers


class ModelError(FileError):
    """A model file is missing, damaged, or of another network; the message says which."""


def save_model(state_dict: dict[str, torch.Tensor], path: str | pathlib.Path):
    """Write a state_dict of float tensors to `path`, whole or not at all.

    Raises:
        ModelError: it cannot be written.
    """
    file = io.BytesIO()
    torch.save(state_dict, file)
    content = file.getvalue()[:-2] + COMMENT.to_bytes(2, "little")
    with named(f"--save-model {path}", ModelError):
        write_whole(pathlib.Path(path), content + _digest(content))


def _digest(content):
    return hashlib.sha256(content).hexdigest().encode()


def reveal_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What the model's owner gets, who asks all workers for their shares: a plain state_dict."""
    return {
        name: parameter.copy().get().float_precision().detach()
        for name, parameter in model.named_parameters()
    }


def save_weights(args, model: torch.nn.Module, run):
    """If `args.save_model` asks for it, reveal the weights to the model's owner, and save them."""
    if args.save_model:
        save_model(reveal_weights(model), args.save_model)
        run.say(f"the weights were revealed to the model's owner: {args.save_model}\n")


def load_model(model: torch.nn.Module, path: str | pathlib.Path):
    """Give `model` the weights in `path`, which `save_model` wrote.

    Raises:
        ModelError: there is no such file, a bit of it has changed, it holds weights of another
            network or of another type, or numbers that are not finite.
    """
    expected = model.state_dict()
    most = SLACK + sum(tensor.nbytes for tensor in expected.values())
    with named(path, ModelError), regular(path, most) as file:
        content = file.read()
    content, digest = content[:-COMMENT], content[-COMMENT:]
    if _digest(content) != digest:
        raise ModelError(f"{path} is damaged, or not a model that --save-model made")
    try:
        with warnings.catch_warnings(action="ignore"):  # of sparse tensors, which are refused below
            state_dict = torch.load(io.BytesIO(content + digest), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{path} is not a model") from error
    if not isinstance(state_dict, dict) or _kinds(state_dict) != _kinds(expected):
        raise ModelError(f"{path} holds the weights of another network, or of another type")
    if not all(tensor.isfinite().all() for tensor in state_dict.values()):
        raise ModelError(f"{path} holds weights that are not finite")
    model.load_state_dict(state_dict)


def _kinds(state_dict):
    """What the weights have to agree in, by their names."""
    return {
        name: [getattr(tensor, what, None) for what in ("shape", "dtype", "layout", "device")]
        for name, tensor in state_dict.items()
    }
