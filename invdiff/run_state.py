"""Stored runs: written atomically, and resumed only by the run that they belong to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invdiff.digest import attributes, class_digest, digest
from invdiff.errors import InputError

__all__ = ["Identity", "check_identity", "check_writable", "identity", "load", "save"]

Identity = Mapping[str, str]
"""Digest of each named part of a run."""

_HEADER = "invdiff"
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


def save(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, object], *, run: Identity
) -> None:
    """Store tensors and a JSON header atomically: the file is never incomplete.

    Args:
        path: Path of a safetensors file, which is replaced if it exists.
        tensors: Real or complex tensors by name, on any device.
        header: Values that JSON can represent, by name.
        run: Identity of the run, which :func:`load` checks.
    """
    stored = {
        f"{name}{_COMPLEX}" if value.is_complex() else name: (
            torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
        )
        .cpu()
        .contiguous()
        .clone()
        for name, value in tensors.items()
    }
    metadata = {_HEADER: json.dumps({**header, "run": dict(run)})}
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        save_file(stored, partial, metadata)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(
    path: Path, *, run: Identity | None, device: str | torch.device = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header that :func:`save` stored.

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
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path.name} is not a stored run",
            got=error if isinstance(error, SafetensorError | OSError) else "a file without header",
            expected="a file that invdiff wrote",
            hint="Choose another file name; a file that does not exist begins a new run.",
        ) from error
    if run is not None:
        check_identity(header.get("run", {}), run, f"the checkpoint {path.name}")
    values = {
        name.removesuffix(_COMPLEX): torch.view_as_complex(value)
        if name.endswith(_COMPLEX)
        else value
        for name, value in tensors.items()
    }
    return values, header
