"""Stored runs: written atomically, and resumed only by the run that they belong to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invdiff.digest import attributes, class_digest, digest
from invdiff.errors import InputError

__all__ = [
    "Checkpoint",
    "Identity",
    "check_identity",
    "check_writable",
    "identity",
    "load",
    "save",
]

Identity = Mapping[str, str]
"""Digest of each named part of a run."""

_HEADER = "invdiff"
_TENSOR = "<tensor>"  # key of the JSON object that stands for a tensor
_COMPLEX = ".complex"  # suffix of complex tensors, which are stored as pairs of reals


def identity(parts: Mapping[str, object]) -> dict[str, str]:
    """Digests of every array and setting that changes the answer of a run.

    Two runs with equal identities give the same members, bit for bit where batch sizes and devices
    agree. Each part is digested by `invdiff.digest.digest`; the attributes of an object are
    digested separately, so that a refusal can name the one that differs, such as
    ``operator.survey``.

    Args:
        parts: Objects of a run by name: data, operator, prior, sampler, seed and so on.

    >>> identity({"seed": 0}) == identity({"seed": 1})
    False
    """
    digests = {"invdiff": version("invdiff")}
    for name, part in parts.items():
        found = attributes(part)
        if found is None:
            digests[name] = digest(part)
        else:
            digests[name] = class_digest(type(part))
            digests |= {f"{name}.{key}": digest(value) for key, value in found.items()}
    return digests


def check_identity(stored: Identity, expected: Identity, what: str) -> None:
    """Refuse to resume a run from what another run stored.

    Args:
        stored: Identity of the run that was stored.
        expected: Identity of the present run.
        what: Description of what was stored, for the message.

    Raises:
        InputError: The identities differ; the message names the parts that do.
    """
    names = sorted(stored.keys() | expected.keys())
    differing = [name for name in names if stored.get(name) != expected.get(name)]
    # What a class keeps for itself follows from what it was given, if that differs.
    differing = [name for name in differing if "._" not in name] or differing
    if differing:
        raise InputError(
            f"{what} belongs to another run",
            got=f"a run that differs in {', '.join(differing)}",
            expected="the same data, operator, prior, method and settings",
            hint="Use the settings of that run, or choose another file to begin a new run.",
        )


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before a long run instead of after its first step.

    Raises:
        InputError: The folder is missing or not writable, or the path is a folder.
    """
    folder = path.resolve().parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK) or path.is_dir():
        raise InputError(
            f"cannot write {path}",
            got="a folder" if path.is_dir() else f"a folder that is missing or read-only: {folder}",
            expected="a file name in a folder that exists",
            hint="Create the folder first, or choose another path.",
        )


@dataclass(frozen=True)
class Checkpoint:
    """A file in which a run is stored after each step, and from which it is resumed.

    Args:
        path: Path of the file, which is replaced whenever it is written.
        run: Identity of the run; a file of another run is refused.

    Raises:
        InputError: The folder of the file is missing or not writable.
    """

    path: Path
    run: Identity

    def __post_init__(self) -> None:
        check_writable(self.path)

    def save(self, values: Mapping[str, object]) -> None:
        """Store values as :func:`save` does."""
        save(self.path, values, run=self.run)

    def part(self, name: str) -> Checkpoint:
        """The file beside this one of a part of the run that comes first."""
        return Checkpoint(self.path.with_name(f"{self.path.name}.{name}"), self.run)

    def load(self, device: str | torch.device) -> dict[str, Any] | None:
        """The stored values, by :func:`load`; None without a file."""
        return load(self.path, run=self.run, device=device) if self.path.exists() else None


def save(path: Path, values: Mapping[str, object], *, run: Identity) -> None:
    """Store values by name, atomically: the file is never incomplete.

    Args:
        path: Path of a safetensors file, which is replaced if it exists.
        values: Tensors, real or complex and on any device, numbers, text and None; or tuples and
            mappings of these, however nested.
        run: Identity of the run, which :func:`load` checks.
    """
    stored: dict[str, Tensor] = {}

    def packed(value: Any) -> Any:
        if isinstance(value, Tensor):
            name = f"{len(stored)}{_COMPLEX if value.is_complex() else ''}"
            real = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
            stored[name] = real.cpu().contiguous().clone()
            return {_TENSOR: name}
        if isinstance(value, Mapping):
            return {key: packed(one) for key, one in value.items()}
        return list(map(packed, value)) if isinstance(value, tuple | list) else value

    header = json.dumps({"values": packed(values), "run": dict(run)})
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        save_file(stored, partial, {_HEADER: header})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, *, run: Identity | None, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Values that :func:`save` stored, sequences as tuples.

    Args:
        path: Path of the file.
        run: Identity that the file must have; None accepts any.
        device: Device on which the tensors are placed.

    Raises:
        InputError: The file was not written by :func:`save`, or belongs to another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            names = list(file.keys())
            tensors = {name: file.get_tensor(name).to(device) for name in names}
        stored = header["values"]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path.name} is not a stored run",
            got=error if isinstance(error, SafetensorError | OSError) else "a file without header",
            expected="a file that this version of invdiff wrote",
            hint="Choose another file name; a file that does not exist begins a new run.",
        ) from error
    if run is not None:
        check_identity(header["run"], run, f"the checkpoint {path.name}")

    def unpacked(value: Any) -> Any:
        if isinstance(value, dict) and _TENSOR in value:
            name = value[_TENSOR]
            tensor = tensors[name]
            return torch.view_as_complex(tensor) if name.endswith(_COMPLEX) else tensor
        if isinstance(value, dict):
            return {key: unpacked(one) for key, one in value.items()}
        return tuple(map(unpacked, value)) if isinstance(value, list) else value

    return {name: unpacked(value) for name, value in stored.items()}
