"""Digests of objects of any kind, by all that changes what they compute."""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Iterator, Mapping, Set
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["attributes", "class_digest", "digest"]

# Classes and functions of these count by their names: their code changes with their versions.
_LIBRARIES = {*sys.stdlib_module_names, "invdiff", "numpy", "pandas", "scipy", "torch", "xarray"}
_MODULE_PARTS = frozenset(vars(torch.nn.Module()))  # what torch keeps in every module
_DESCRIPTORS = (property, functools.cached_property, staticmethod, classmethod)
_Inside = frozenset[int]


def digest(value: object) -> str:
    """SHA-256 of a value of any kind, its arrays and attributes included.

    Arrays and tensors count by dtype, shape and values, not by device or byte order; modules of
    torch by weights, buffers and attributes; functions by code, defaults, closure and the numbers
    and arrays among their globals; other objects by their class and what its property ``settings``
    returns, or else by what they pickle, or else by their attributes, cached properties left out.
    Classes outside of the libraries count by their code and attributes, too. What cannot be
    taken apart, such as a lock or a compiled solver, counts by its class alone.

    >>> digest(range(3)) == digest(range(4))
    False
    """
    return _hashed(_chunks(value, frozenset()))


def class_digest(cls: type) -> str:
    """SHA-256 of a class: its name, and its code and attributes if it is not of a library."""
    return _hashed(_class(cls, frozenset()))


def attributes(value: object) -> Mapping[str, object] | None:
    """What of an object changes what it computes, by name; None for what has no attributes.

    Modules of torch, containers, arrays, functions and classes are not taken apart.
    """
    kinds = (Mapping, Set, list, tuple, Tensor, np.ndarray, np.generic, torch.nn.Module, type)
    if _is_plain(value) or isinstance(value, kinds):
        return None
    if isinstance(value, functools.partial) or inspect.isroutine(value):
        return None
    cls = type(value)
    # Of the class: an instance may well have a dict of that name that is not all of it.
    if isinstance(inspect.getattr_static(cls, "settings", None), property):
        return dict(value.settings)  # type: ignore[attr-defined]
    if _is_pickled_its_own_way(cls):
        return None
    names = [*getattr(value, "__dict__", ()), *_slots(cls)]
    return {name: getattr(value, name) for name in names if _is_state(value, name)} or None


def _hashed(chunks: Iterator[bytes]) -> str:
    hasher = hashlib.sha256()
    for chunk in chunks:
        hasher.update(len(chunk).to_bytes(8, "little"))
        hasher.update(chunk)
    return hasher.hexdigest()


def _chunks(value: object, inside: _Inside) -> Iterator[bytes]:
    """The bytes that a value is digested from; ``inside`` holds the objects being walked."""
    if isinstance(value, np.generic):
        value = value.item()
    if _is_plain(value):
        yield f"{type(value).__name__} {value!r}".encode()
    elif id(value) in inside:
        yield b"cycle"
    elif isinstance(value, Tensor):
        yield from _tensor(value.detach().cpu(), inside)
    elif isinstance(value, np.ndarray | np.generic):
        yield from _array(np.asanyarray(value), inside)
    else:
        inside |= {id(value)}
        yield from _class(type(value), inside)
        yield from _compound(value, inside)


def _compound(value: object, inside: _Inside) -> Iterator[bytes]:
    """Those of a value that holds others."""
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
        yield from _module(value, inside)
    elif isinstance(value, functools.partial):
        yield from _chunks((value.func, value.args, value.keywords), inside)
    elif isinstance(value, types.MethodType):
        yield from _chunks((value.__func__, value.__self__), inside)
    elif isinstance(value, types.FunctionType):
        yield from _function(value, inside)
    elif isinstance(value, types.ModuleType):
        yield value.__name__.encode()
    elif isinstance(value, type):
        yield from _class(value, inside)
    elif (found := attributes(value)) is not None:
        yield from _chunks(found, inside)
    else:
        yield from _chunks(_pickled(value), inside)


def _module(value: torch.nn.Module, inside: _Inside) -> Iterator[bytes]:
    """Weights, buffers (persistent or not) and attributes of a module and all inside of it."""
    value = getattr(value, "_orig_mod", value)  # of a compiled one
    for name, module in value.named_modules():
        own = {key: v for key, v in vars(module).items() if key not in _MODULE_PARTS}
        own = {key: v for key, v in own.items() if not _is_cached(type(module), key)}
        parts = dict(module._parameters), dict(module._buffers)
        yield from _class(type(module), inside)
        yield from _chunks((name, *parts, own), inside)


def _function(value: types.FunctionType, inside: _Inside) -> Iterator[bytes]:
    """Code, defaults, closure, and the globals that are data or functions of the same module."""
    yield value.__qualname__.encode()
    if _is_of_library(value):
        yield str(value.__module__).encode()
    yield from _chunks((value.__defaults__, value.__kwdefaults__, _code(value.__code__)), inside)
    for cell in value.__closure__ or ():
        try:
            yield from _chunks(cell.cell_contents, inside)
        except ValueError:  # named later, or never
            yield b"empty"
    if _is_of_library(value):
        return
    for name in sorted(_names(value.__code__) & value.__globals__.keys()):
        used = value.__globals__[name]
        is_near = isinstance(used, types.FunctionType) and used.__module__ == value.__module__
        if is_near or _is_plain(used) or isinstance(used, Tensor | np.ndarray | np.generic):
            yield name.encode()
            yield from _chunks(used, inside)


def _code(code: types.CodeType) -> tuple[object, ...]:
    """Bytecode and constants, without the file's name and line numbers."""
    constants = [_code(c) if isinstance(c, types.CodeType) else c for c in code.co_consts]
    return code.co_code, code.co_names, constants


def _names(code: types.CodeType) -> set[str]:
    inner = [_names(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return set(code.co_names).union(*inner)


def _class(cls: type, inside: _Inside) -> Iterator[bytes]:
    """The name of a class; its functions and attributes too, if it is not of a library."""
    yield f"{cls.__module__}.{cls.__qualname__}".encode()
    for base in cls.__mro__:
        if _is_of_library(base) or id(base) in inside:
            continue
        for name, member in sorted(vars(base).items()):
            if name.startswith(("__", "_abc_")) and not inspect.isfunction(member):
                continue
            for part in _parts(member):
                yield name.encode()
                yield from _chunks(part, inside | {id(base)})


def _parts(member: object) -> list[object]:
    """Functions of a member of a class, or the member itself if it is data."""
    if isinstance(member, property):
        return [f for f in (member.fget, member.fset) if f is not None]
    if isinstance(member, functools.cached_property):
        return [member.func]
    if isinstance(member, staticmethod | classmethod):
        return [member.__func__]
    is_descriptor = hasattr(member, "__get__") and not inspect.isfunction(member)
    return [] if is_descriptor else [member]


def _is_of_library(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] in _LIBRARIES


def _is_pickled_its_own_way(cls: type) -> bool:
    hooks = ("__reduce__", "__reduce_ex__", "__getstate__")
    return any(getattr(cls, hook, None) is not getattr(object, hook, None) for hook in hooks)


def _pickled(value: object) -> object:
    """What pickle would store of an object; None where it would not."""
    try:
        stored = value.__reduce_ex__(2)
        # Iterators over items, of a deque for instance, would be told by their container.
        return [list(part) if isinstance(part, Iterator) else part for part in stored]
    except (TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError):
        return None


def _slots(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            is_private = name.startswith("__") and not name.endswith("__")
            yield f"_{base.__name__.lstrip('_')}{name}" if is_private else name


def _is_state(value: object, name: str) -> bool:
    is_empty = not hasattr(value, name)  # a slot that was never filled
    return not (is_empty or name in ("__dict__", "__weakref__") or _is_cached(type(value), name))


def _is_cached(cls: type, name: str) -> bool:
    return isinstance(inspect.getattr_static(cls, name, None), functools.cached_property)


def _is_plain(value: object) -> bool:
    kinds = (str, bytes, bool, int, float, complex, torch.dtype, torch.device, Path, Enum, slice)
    return value is None or (isinstance(value, kinds) and not isinstance(value, np.generic))


def _tensor(tensor: Tensor, inside: _Inside) -> Iterator[bytes]:
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_floating_point() and tensor.dtype.itemsize <= 2 and tensor.dtype != torch.half:
        # NumPy has no such numbers.
        yield f"{tensor.dtype} {tuple(tensor.shape)}".encode()
        tensor = tensor.contiguous().reshape(-1).view(torch.uint8)
    yield from _array(tensor.resolve_conj().resolve_neg().numpy(), inside)


def _array(array: np.ndarray[Any, Any], inside: _Inside) -> Iterator[bytes]:
    if isinstance(array, np.ma.MaskedArray):
        yield from _array(np.ma.getmaskarray(array), inside)
        array = array.filled()
    if array.dtype.hasobject:
        yield from _chunks((array.shape, array.tolist()), inside | {id(array)})
        return
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    yield f"{native.dtype.str[1:]} {array.shape}".encode()
    yield native.tobytes()
