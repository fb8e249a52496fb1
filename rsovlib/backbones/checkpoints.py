"""Reading weight files without ever running code from them.

Only two formats are read: safetensors, and PyTorch archives through ``torch.load(weights_only=True)``.
There is no fallback: a file that needs more than tensors and plain containers is refused, and so is a
TorchScript archive, because loading one executes the program inside.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from rsovlib.errors import WeightsError

# Keys under which published training scripts nest the state dict, in the order in which they are tried.
_NESTS = ("state_dict", "model_state_dict", "model", "teacher", "student")
# Prefixes that data-parallel wrappers and self-distillation trainers put before every parameter's name.
_PREFIXES = ("module.", "_orig_mod.", "backbone.", "teacher.", "model.")

#: Names that begin so belong to heads, which self-distillation trainers keep beside the backbone.
HEADS = ("head.", "dino_head.", "ibot_head.", "projection_head.")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint, safely, with wrappers' nesting and prefixes removed.

    Args:
        path: a ``.safetensors`` file (known by its content, not its name) or a PyTorch archive.

    Returns:
        Parameter names to tensors on the CPU, in the precision in which they are stored.

    Raises:
        WeightsError: the file is missing, damaged, holds no tensors, or needs code to be run.
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsError(f"There is no weights file {file}; check the path.")
    if _is_safetensors(file):
        try:
            tensors: Any = load_file(file, device="cpu")
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{file} is damaged ({error}); fetch it again.") from error
    else:
        tensors = _read_archive(file)
    return _flatten(tensors, file)


def _is_safetensors(file: Path) -> bool:
    """Whether the file begins as safetensors does: the header's length in 8 bytes, then a JSON object."""
    with file.open("rb") as stream:
        start = stream.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < file.stat().st_size


def _read_archive(file: Path) -> Any:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise WeightsError(
                    f"{file} is a TorchScript archive, and loading one runs the program inside; "
                    "convert it to safetensors on a machine that you trust, or use the safetensors release."
                )
    try:
        # Given a path, torch would go by its ending; a stream's content alone decides. Pickles of another protocol
        # than torch's own only bring a warning, on the way to being refused.
        with file.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{file} can't be read as plain tensors, so it is refused for safety; save its state dict as safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{file} is no readable checkpoint ({_first_line(error)}); fetch it again.") from error


def _flatten(tensors: Any, file: Path) -> dict[str, torch.Tensor]:
    for _ in range(3):  # for example {"teacher": {"backbone.blocks...": tensor}}
        nest = next(
            (key for key in _NESTS if isinstance(tensors, Mapping) and isinstance(tensors.get(key), Mapping)), None
        )
        if nest is None:
            break
        tensors = tensors[nest]
    if not isinstance(tensors, Mapping):
        raise WeightsError(f"{file} holds no state dict (names to tensors) but {type(tensors).__name__}.")
    state = {str(name): value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    if not state:
        raise WeightsError(f"{file} holds no tensors.")
    prefix = _common_prefix(state)
    while prefix is not None:
        state = {name.removeprefix(prefix): value for name, value in state.items()}
        prefix = _common_prefix(state)
    return state


def _common_prefix(state: Mapping[str, torch.Tensor]) -> str | None:
    """The wrapper's prefix that all names begin with; heads of self-distillation beside a backbone don't count."""
    names = [name for name in state if not name.removeprefix("module.").startswith(HEADS)] or list(state)
    return next((p for p in _PREFIXES if all(name.startswith(p) for name in names)), None)


def load_strictly(model: torch.nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy ``state`` into ``model``; every parameter must be there, with its shape, and nothing else.

    Raises:
        WeightsError: names or shapes differ; the sentence names the first of each kind.
    """
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    odd = [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
    if missing or extra or odd:
        parts = []
        if odd:
            parts.append(f"{odd[0]} is {tuple(state[odd[0]].shape)}, the model has {tuple(wanted[odd[0]].shape)}")
        if missing:
            parts.append(f"{len(missing)} missing, first {missing[0]}")
        if extra:
            parts.append(f"{len(extra)} unknown, first {extra[0]}")
        raise WeightsError(f"{source} does not fit this architecture: {'; '.join(parts)}.")
    model.load_state_dict(dict(state))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
