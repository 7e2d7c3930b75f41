"""A device that is not there: tensors of the CPU that mix as badly as those of a GPU. No tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["PretendDevice"]

_THERE = torch.device("cuda:0")
_READ_BY_THE_CPU = (Tensor.numpy, Tensor.__array__)
_INDEXING = (Tensor.__getitem__, Tensor.__setitem__, Tensor.index_put)  # by indices on the CPU too


class _There(Tensor):
    """A tensor that claims to be on the device; what is computed from it is there, too."""


class PretendDevice(TorchFunctionMode):
    """Within this context ``"cuda"`` exists, on the CPU.

    As on a GPU an operation refuses tensors of two devices, unless those of the CPU are scalars,
    and numpy cannot read a tensor before ``.cpu()``. Kernels that are not torch's do not take part.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func == Tensor.device.__get__:
            return _THERE if isinstance(args[0], _There) else func(*args)
        if func == Tensor.is_cuda.__get__:
            return isinstance(args[0], _There)
        if func is Tensor.cpu:
            return func(*args, **kwargs).as_subclass(Tensor)
        if func is Tensor.to:
            return _moved(*args, **kwargs)
        tensors = list(_tensors((args, kwargs)))
        is_there = [isinstance(x, _There) for x in tensors]
        if func in _READ_BY_THE_CPU and any(is_there):
            raise TypeError("numpy cannot read a tensor of another device: use .cpu() first")
        apart = any(x.ndim > 0 for x, there in zip(tensors, is_there, strict=True) if not there)
        if any(is_there) and apart and func not in _INDEXING:
            raise RuntimeError(f"{func.__name__} of tensors on two devices")
        to_device = _is_there(kwargs.get("device"))
        if kwargs.get("device") is not None:
            kwargs["device"] = "cpu"
        out = func(*args, **kwargs)
        return out.as_subclass(_There) if to_device else out


def _moved(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``x.to(...)``, marked by the device or by the tensor that is named."""
    there = isinstance(x, _There)
    named = [*args, *kwargs.values()]
    for value in named:
        if isinstance(value, Tensor):
            there = isinstance(value, _There)
        elif isinstance(value, str | torch.device):
            there = _is_there(value)
    here = [torch.device("cpu") if isinstance(v, str | torch.device) else v for v in args]
    other = {k: "cpu" if k == "device" else v for k, v in kwargs.items()}
    return Tensor.to(x, *here, **other).as_subclass(_There if there else Tensor)


def _is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
