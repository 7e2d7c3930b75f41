"""Store and load priors: safetensors weights with a JSON card that holds their checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from invdiff.errors import (
    ChecksumError,
    InputError,
    OutputExistsError,
    UnknownNameError,
    UnsupportedError,
)
from invdiff.grid import Grid
from invdiff.priors.edm import EDMNetwork
from invdiff.priors.network import NetworkPrior, cell_sizes
from invdiff.priors.positions import Centred, Depth, Positions
from invdiff.priors.spectral import ErrorSpectra
from invdiff.priors.unet import UNetConfig
from invdiff.schedule import VE

__all__ = ["available", "brain_t1", "check_path", "load_prior", "save_prior", "velocity_2d"]

_GROUP = "invdiff.priors"
_CARD_KEYS = ("name", "data", "licence", "recipe", "seed", "metrics")
_STORED_KEYS = ("sha256", "architecture", "sigma_data", "scale", "grid", "schedule")
_POSITIONS: dict[str, type[Centred] | type[Depth]] = {"centred": Centred, "depth": Depth}
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128)
}


def available() -> list[str]:
    """Names that `load_prior` knows: the entry points of the group ``invdiff.priors``."""
    return sorted(entry.name for entry in entry_points(group=_GROUP))


def load_prior(name: str | Path, *, grid: Grid | None = None) -> NetworkPrior:
    """Load a prior by name, or from the path of its ``.safetensors`` or ``.json``.

    Names are found among the entry points of the group ``invdiff.priors``, so that another package
    can add its own. A stored prior is two files, ``PATH.safetensors`` and ``PATH.json``; nothing in
    them is executed.

    Args:
        name: such as ``"brain-t1"`` or ``"velocity-2d"`` (see `available`), or a path.
        grid: put the prior on this grid instead of the one it was trained on; see
            `NetworkPrior.on`.

    Raises:
        UnknownNameError: neither a registered name nor a stored prior.
        ChecksumError: weights that are not those of the card.
        InputError: weights that are missing, a card that cannot be read, or a grid of other units
            or cells than the prior's.
        ShapeError: a grid that is not 2-D, or whose dims stand in another order.
        DTypeError: a real grid for a prior of complex fields, or the reverse.

    Example:
        >>> from invdiff.priors import load_prior
        >>> prior = load_prior("velocity-2d")
        >>> prior.grid.dims, prior.grid.units, prior.card["spacing"]
        (('z', 'x'), 'm s-1', {'z': 10.0, 'x': 10.0})
    """
    stem = Path(str(name).removesuffix(".safetensors").removesuffix(".json"))
    if stem.name not in ("", "..") and _file(stem, "json").exists():
        prior = _read(stem)
    else:
        entries = {entry.name: entry for entry in entry_points(group=_GROUP)}
        if str(name) not in entries:
            raise UnknownNameError(
                "unknown prior",
                got=repr(str(name)),
                expected=f"one of {sorted(entries)} or the path of a stored prior",
                hint="Store your own with invdiff.priors.hub.save_prior.",
            )
        prior = entries[str(name)].load()()
    return prior if grid is None else prior.on(grid)


def brain_t1() -> NetworkPrior:
    """The shipped prior of complex T1-like axial brain slices; see its ``card``."""
    return _read(Path(__file__).parent / "weights" / "brain-t1")


def velocity_2d() -> NetworkPrior:
    """The shipped prior of P-velocity models in m/s on 10 m cells, any size; see its ``card``."""
    return _read(Path(__file__).parent / "weights" / "velocity-2d")


def save_prior(
    prior: NetworkPrior,
    path: str | Path,
    card: Mapping[str, object] | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Store a prior as two files; the weights are rounded to half precision.

    Args:
        prior: to store; `NetworkPrior.fitted` makes one whose weights are rounded already.
        path: without suffix; ``.safetensors`` and ``.json`` are added. Its folder is made.
        card: description with name, data, licence, recipe, seed and metrics; default
            ``prior.card``.
        overwrite: replace a stored prior.

    Returns:
        The path of the weights.

    Raises:
        UnsupportedError: a prior that is not a `NetworkPrior`.
        OutputExistsError: a stored prior at this path, without ``overwrite``.
        InputError: a card that leaves something out, that JSON cannot hold or whose ``spacing``
            does not fit the grid; a schedule other than VE; position channels that are not
            invdiff's; weights beyond half precision; a window of a larger prior.
    """
    if not isinstance(prior, NetworkPrior):
        raise UnsupportedError(
            "this prior cannot be stored",
            got=type(prior).__name__,
            expected="a NetworkPrior",
            hint="Store the patch prior of a TiledPrior; build priors in closed form again.",
        )
    if not isinstance(prior.schedule, VE):
        raise InputError(
            "the schedule cannot be stored",
            got=prior.schedule,
            expected="VE",
            hint="Give the prior a VE schedule of the same ratios: samplers see no difference.",
        )
    described = {**(prior.card if card is None else card), **_description(prior)}
    _check_card(described)
    cell_sizes(described, prior.grid)
    if not torch.equal(prior.positions.cpu(), prior.coordinates(prior.grid.shape)):
        raise InputError(
            "the prior is a window of a larger one",
            got=prior,
            expected="positions that are those of its grid",
            hint="Store prior.on(grid), the prior on a whole grid.",
        )
    weights = check_path(path, overwrite=overwrite)
    tensors = {
        f"network.{key}": value.detach().cpu().half().contiguous()
        for key, value in prior.network.state_dict().items()
    }
    if not all(torch.isfinite(value).all() for value in tensors.values()):
        raise InputError(
            "a weight of the network is beyond half precision",
            got="Inf or NaN after rounding",
            expected="weights below 65504 in magnitude",
            hint="Train again with a lower learning rate, or scale the fields.",
        )
    spectra = prior.spectra
    tensors |= {
        f"spectra.{key}": torch.from_numpy(np.asarray(value, np.float32))
        for key, value in (
            ("ratios", spectra.ratios),
            ("wavenumbers", spectra.wavenumbers),
            ("power", spectra.power),
        )
    }
    weights.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, weights)
    described["sha256"] = _checksum(weights)
    _file(Path(path), "json").write_text(json.dumps(described, indent=2) + "\n")
    return weights


def check_path(path: str | Path, *, overwrite: bool = False) -> Path:
    """The path of the weights that `save_prior` would write: to ask before a long run.

    Raises:
        OutputExistsError: a stored prior at this path, without ``overwrite``.
    """
    weights = _file(Path(path), "safetensors")
    if weights.exists() and not overwrite:
        raise OutputExistsError(
            "a prior is stored at this path",
            got=weights.name,
            expected="a path without a stored prior",
            hint="Choose another path, or overwrite.",
        )
    return weights


def _description(prior: NetworkPrior) -> dict[str, object]:
    """What the card must state for the prior to be built again."""
    grid, schedule = prior.grid, prior.schedule
    return {
        "architecture": prior.network.network.config.to_dict(),
        "sigma_data": prior.network.sigma_data,
        "scale": prior.scale,
        "offset": prior.offset,
        "positions": {"kind": _kind(prior.coordinates), "unit": prior.coordinates.unit},
        "grid": {
            "dims": list(grid.dims),
            "shape": list(grid.shape),
            "dtype": str(grid.dtype).removeprefix("torch."),
            "units": grid.units,
        },
        "schedule": {
            "ratio_min": schedule.ratio_min,
            "ratio_max": schedule.ratio_max,
            "rho": schedule.rho,
        },
    }


def _kind(coordinates: Positions) -> str:
    for kind, known in _POSITIONS.items():
        if type(coordinates) is known:
            return kind
    raise InputError(
        "the position channels cannot be stored",
        got=coordinates,
        expected=f"one of {sorted(known.__name__ for known in _POSITIONS.values())}",
        hint="Use one of invdiff.priors.positions.",
    )


def _positions(card: Mapping[str, Any]) -> Positions:
    """Position channels of a card; cards of an older invdiff name none and mean centred ones."""
    stored = card.get("positions", {"kind": "centred", "unit": 112.0})
    if stored["kind"] not in _POSITIONS:
        raise InputError(
            "the card names unknown position channels",
            got=stored["kind"],
            expected=f"one of {sorted(_POSITIONS)}",
            hint="Install a newer invdiff.",
        )
    return _POSITIONS[stored["kind"]](stored["unit"])


def _check_card(card: Mapping[str, object]) -> None:
    missing = [key for key in _CARD_KEYS if key not in card]
    if missing:
        raise InputError(
            "the card is incomplete",
            got=sorted(card),
            expected=f"also {missing}",
            hint="State what the prior was trained on, how, and how well it does.",
        )
    try:
        json.dumps(card)
    except (TypeError, ValueError) as error:
        raise InputError(
            "the card cannot be stored as JSON",
            got=error,
            expected="text, numbers, lists and dicts",
            hint="Convert numpy values with .item() or .tolist().",
        ) from error


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(
            f"the card {path.name} cannot be read as JSON",
            got=error,
            expected="a card that save_prior has written",
            hint="Install or save the prior again.",
        ) from error
    missing = set(_STORED_KEYS) - set(card)
    if not isinstance(card, dict) or missing:
        raise InputError(
            f"the card {path.name} is incomplete",
            got=sorted(card),
            expected=f"also {sorted(missing)}",
            hint="Install or save the prior again.",
        )
    return card


def _read(stem: Path) -> NetworkPrior:
    card = _read_card(_file(stem, "json"))
    weights = _file(stem, "safetensors")
    if not weights.exists():
        raise InputError(
            "the weights are missing",
            got=f"no {weights.name}",
            expected="that file next to its card",
            hint="Install invdiff again, or fetch the file again.",
        )
    found = _checksum(weights)
    if found != card["sha256"]:
        raise ChecksumError(
            f"{weights.name} is damaged or not the file its card describes",
            got=f"sha256 {found[:16]}...",
            expected=f"{card['sha256'][:16]}...",
            hint="Install invdiff again, or fetch the file again.",
        )
    tensors = load_file(weights)
    network = EDMNetwork(UNetConfig(**card["architecture"]), card["sigma_data"])
    network.load_state_dict(
        {
            key.removeprefix("network."): value.float()
            for key, value in tensors.items()
            if key.startswith("network.")
        }
    )
    spectra = ErrorSpectra(
        *(tensors[f"spectra.{key}"].double().numpy() for key in ("ratios", "wavenumbers", "power"))
    )
    grid = card["grid"]
    return NetworkPrior(
        network.requires_grad_(False).to(memory_format=torch.channels_last),
        spectra,
        Grid(
            tuple(grid["dims"]), tuple(grid["shape"]), _DTYPES[grid["dtype"]], units=grid["units"]
        ),
        schedule=VE(**card["schedule"]),
        scale=card["scale"],
        offset=card.get("offset", 0.0),
        coordinates=_positions(card),
        card=card,
    )


def _file(stem: Path, suffix: str) -> Path:
    return stem.with_name(f"{stem.name}.{suffix}")


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
