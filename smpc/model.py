"""A trained model in a file: a plain `state_dict`, as torch saves it."""

import io
import pathlib
import pickle

import torch

from smpc.files import write_whole


class ModelError(Exception):
    """A model file is missing, damaged, or of another network; the message says which."""


def save_model(state_dict, path):
    """Write a state_dict of float tensors to `path`, whole or not at all.

    Raises:
        ModelError: it cannot be written.
    """
    content = io.BytesIO()
    torch.save(state_dict, content)
    try:
        write_whole(pathlib.Path(path), content.getvalue())
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error


def load_model(model, path):
    """Give `model`, a module, the weights in `path`.

    Raises:
        ModelError: there is no such file, it holds no weights, others than the model's, or numbers
            that are not finite.
    """
    try:
        state_dict = torch.load(path, weights_only=True)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{path} is damaged, or not a model") from error
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if not isinstance(state_dict, dict) or expected != {
        name: getattr(tensor, "shape", None) for name, tensor in state_dict.items()
    }:
        raise ModelError(f"{path} holds the weights of another network")
    if not all(tensor.isfinite().all() for tensor in state_dict.values()):
        raise ModelError(f"{path} holds weights that are not finite")
    model.load_state_dict(state_dict)
