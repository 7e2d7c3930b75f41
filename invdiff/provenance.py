"""What a result must tell of how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from invdiff.protocols import Prior

__all__ = ["describe"]


def describe(prior: Prior | None, settings: Mapping[str, object]) -> dict[str, str | int | float]:
    """CF and provenance attributes of a result.

    Args:
        prior: named by its card, with the checksum of its weights; None where there is none.
        settings: stored as ``invdiff_<key>``; numbers as they are, others by their repr.
    """
    card = getattr(prior, "card", {})
    name = f"{card['name']}@sha256:{card['sha256']}" if "sha256" in card else repr(prior)
    name = "none" if prior is None else name
    attrs: dict[str, str | int | float] = {
        "Conventions": "CF-1.11",
        "source": f"invdiff {version('invdiff')}",
        "invdiff_prior": name,
    }
    for key, value in settings.items():
        attrs[f"invdiff_{key}"] = value if isinstance(value, str | int | float) else repr(value)
    attrs["versions"] = ", ".join(f"{p} {version(p)}" for p in ("torch", "numpy", "xarray"))
    return attrs
