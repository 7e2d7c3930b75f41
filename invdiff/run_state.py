"""Stored runs: written atomically, and resumed only by the run that they belong to."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import types
from collections.abc import Iterator, Mapping, Set
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from invdiff.errors import InputError

__all__ = ["Identity", "check_identity", "check_writable", "digest", "identity", "load", "save"]

Identity = Mapping[str, str]
"""Digest of each named part of a run."""

_HEADER = "invdiff"
_COMPLEX = ".complex"  # suffix of complex tensors, which are stored as pairs of reals


def identity(parts: Mapping[str, object]) -> dict[str, str]:
    """Digests of every array and setting that changes the answer of a run.

    Two runs with equal identities give the same members, bit for bit where batch sizes and devices
    agree. Each part is digested by :func:`digest`; the attributes of an object are digested
    separately, so that a refusal can name the one that differs, such as ``operator.survey``.

    Args:
        parts: Objects of a run by name: data, operator, prior, sampler, seed and so on.

    >>> identity({"seed": 0}) == identity({"seed": 1})
    False
    """
    digests = {"invdiff": version("invdiff")}
    for name, part in parts.items():
        attributes = None if _is_plain(part) else _settings(part)
        if attributes is None:
            digests[name] = digest(part)
        else:
            digests[name] = _name(type(part))
            digests |= {f"{name}.{key}": digest(value) for key, value in attributes.items()}
    return digests


def digest(value: object) -> str:
    """SHA-256 of a value of any kind, including its arrays and attributes.

    Arrays and tensors count by dtype, shape and values; modules of torch by their weights;
    functions by their code, defaults and closure; other objects by their class and what their
    property ``settings`` returns, or else by their attributes, cached properties left out. An
    object that has neither, such as a lock or a compiled solver, counts by its class only.
    """
    hasher = hashlib.sha256()
    for chunk in _chunks(value, set()):
        hasher.update(len(chunk).to_bytes(8, "little"))
        hasher.update(chunk)
    return hasher.hexdigest()


def _chunks(value: object, inside: set[int]) -> Iterator[bytes]:
    """Bytes from which a value is digested; ``inside`` holds the objects that contain it."""
    if _is_plain(value):
        yield f"{type(value).__name__} {value!r}".encode()
    elif isinstance(value, Tensor):
        yield from _array(value.detach().cpu())
    elif isinstance(value, np.ndarray | np.generic):
        yield from _numpy(np.asarray(value))
    elif id(value) in inside:
        yield b"cycle"
    else:
        yield _name(type(value)).encode()
        yield from _compound(value, inside | {id(value)})


def _compound(value: object, inside: set[int]) -> Iterator[bytes]:
    """Bytes from which a value that holds others is digested."""
    if isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield from _chunks(key, inside)
            yield from _chunks(value[key], inside)
    elif isinstance(value, Set):
        yield from sorted(digest(item).encode() for item in value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _chunks(item, inside)
    elif isinstance(value, torch.nn.Module):
        yield from _chunks(dict(value.state_dict()), inside)
        for name, module in value.named_modules():
            plain = {key: v for key, v in vars(module).items() if _is_plain(v)}
            yield from _chunks((name, _name(type(module)), plain | {"training": None}), inside)
    elif isinstance(value, functools.partial):
        yield from _chunks((value.func, value.args, value.keywords), inside)
    elif isinstance(value, types.MethodType):
        yield from _chunks((value.__func__, value.__self__), inside)
    elif isinstance(value, types.FunctionType):
        closure = [cell.cell_contents for cell in value.__closure__ or ()]
        yield from _chunks((value.__qualname__, value.__defaults__, value.__kwdefaults__), inside)
        yield from _chunks((_code(value.__code__), closure), inside)
    elif isinstance(value, type | types.BuiltinFunctionType | types.ModuleType):
        yield repr(value).encode()
    else:
        yield from _chunks(_settings(value) or {}, inside)


def _settings(value: object) -> Mapping[str, object] | None:
    """Parts of an object that change an answer, by name; None for an object without named parts."""
    if isinstance(value, Mapping | Set | list | tuple | Tensor | np.ndarray | torch.nn.Module):
        return None
    if callable(value) and not hasattr(value, "__dict__"):
        return None
    declared = getattr(value, "settings", None)
    if isinstance(declared, Mapping):
        return declared
    if isinstance(value, types.FunctionType | types.MethodType | functools.partial | type):
        return None
    names = vars(value).keys() if hasattr(value, "__dict__") else _slots(type(value))
    cached = {
        name
        for name, member in inspect.getmembers_static(type(value))
        if isinstance(member, functools.cached_property)
    }
    return {name: getattr(value, name) for name in names if name not in cached} or None


def _slots(cls: type) -> list[str]:
    return [name for base in cls.__mro__ for name in getattr(base, "__slots__", ())]


def _is_plain(value: object) -> bool:
    kinds = (str, bytes, bool, int, float, complex, torch.dtype, torch.device, Path, Enum, slice)
    return value is None or isinstance(value, kinds)


def _array(tensor: Tensor) -> Iterator[bytes]:
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype == torch.bfloat16:
        yield b"bfloat16"
        tensor = tensor.float()
    yield from _numpy(tensor.resolve_conj().resolve_neg().numpy())


def _numpy(array: np.ndarray[Any, Any]) -> Iterator[bytes]:
    if array.dtype.hasobject:
        yield repr(array.tolist()).encode()
        return
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    yield f"{native.dtype.str[1:]} {array.shape}".encode()
    yield native.tobytes()


def _code(code: types.CodeType) -> tuple[object, ...]:
    """Bytecode and constants of a function, without the file's name and line numbers."""
    constants = [_code(c) if isinstance(c, types.CodeType) else c for c in code.co_consts]
    return code.co_code, code.co_names, constants


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


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
    if differing:
        raise InputError(
            f"{what} belongs to another run",
            got=f"a run that differs in {', '.join(differing)}",
            expected="the same data, operator, prior, method and settings",
            hint="Use the settings of that run, or choose another file to begin a new run. An"
            " attribute that does not change the answer, such as a counter, is ignored if the class"
            " names the others in a property `settings`.",
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
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
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
