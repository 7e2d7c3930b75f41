"""The verb ``reconstruct``: data, operator and prior in; a labelled posterior ensemble out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path

import torch
import xarray as xr
from torch import Tensor

from invdiff.arguments import as_integer, as_number
from invdiff.completion import completed, rescaled
from invdiff.conditioning import Conditioning
from invdiff.data_fit import run_verdicts
from invdiff.errors import CalibrationWarning, InputError, UnsupportedError
from invdiff.grid import Grid
from invdiff.inputs import as_device, moved
from invdiff.likelihood import AxisCovariance, Gaussian, Likelihood, NoiseModel
from invdiff.needs import warn_if_narrow
from invdiff.noise_levels import GivenNoise, noise_model
from invdiff.posterior import Posterior
from invdiff.protocols import Operator, Prior, Problem, Sampler, Term
from invdiff.result import ensemble_dataset, provenance
from invdiff.samplers import Ensemble, default_sampler, ensemble
from invdiff.samplers.base import UsesTerms
from invdiff.samplers.drive import member_numbers
from invdiff.verbs.inputs import given_problem

__all__ = ["reconstruct"]

_NO_WEIGHTS = "none: members are independent, and probabilities of separate modes approximate"


def reconstruct(
    y: xr.DataArray | Problem,
    operator: Operator | None = None,
    prior: Prior | None = None,
    *,
    realizations: int | Sequence[int] = 16,
    seed: int,
    noise_std: GivenNoise | None = None,
    likelihood: Callable[[Tensor, Operator], Likelihood] | None = None,
    scale: float | None = None,
    terms: Sequence[Term] = (),
    sampler: Sampler | None = None,
    conditioning: Conditioning | None = None,
    batch_size: int = 8,
    name: str = "image",
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> xr.Dataset:
    r"""Draw an ensemble from the posterior :math:`p(x \mid y)` for :math:`y = A(x) + n`.

    The prior's network is evaluated once per step and member by the default sampler. The members'
    fit to the data is checked in every run: a misfit far from 1 is reported in a warning and in
    the attribute ``invdiff_data_fit``.

    Args:
        y: Data on the operator's range; or a `Problem`, as
            `invdiff.operators.mri.cartesian_problem` makes it, which brings its operator, noise
            and scale: ``reconstruct(problem, prior=prior, seed=0)``.
        operator: Forward operator, linear or not; its domain must be the prior's grid.
        prior: Prior of the field.
        realizations: How many members, or their numbers.
        seed: Seed of all randomness; a member depends on ``seed`` and its own number only.
        noise_std: Standard deviation of the noise in the units of ``y`` (for complex data
            ``E|n|^2 = noise_std^2``): a number, one for each element of the first axis of ``y``
            (coils), an array or DataArray that broadcasts to ``y``, an `AxisCovariance`, or a
            callable that whitens. Default: that of the problem, or ``y.attrs["noise_std"]``.
        likelihood: Another noise law instead of Gaussian noise, in the units of ``y``: called with
            data and operator, such as ``Poisson``, ``functools.partial(StudentT, noise_std=0.1)``
            or ``functools.partial(Rician, noise_std=0.02)``.
        scale: Units of ``y`` in which the field has the prior's units; the result is multiplied by
            it. Default: that of the problem, or 1.
        terms: Further terms of the posterior, on fields in the prior's units.
        sampler: Default by :func:`invdiff.samplers.default_sampler`: ``TwistedSMC()``, or
            ``Ancestral()`` where weights are not available, or ``EnKG()`` for black boxes.
        conditioning: Default ``MomentMatching()``, or ``Laplace()`` where the operator is not
            linear; samplers that use the terms directly take none.
        batch_size: Members drawn together, which bounds the memory; a sampler that couples members
            draws all of them at once.
        name: Name of the variable that holds the members.
        device: Where to compute; operator and prior are moved there.
        checkpoint: File to which the run is stored after each step, and from which it is resumed
            if it exists; a file of another run is refused.
        progress: Whether to show a progress bar.

    Returns:
        A Dataset with ``name (realization, *dims)``, ``mean``, ``std``, ``data_misfit
        (realization)`` (1 is expected) and provenance attributes: ``invdiff_sampler`` and others;
        where the conditioning uses them ``invdiff_innovation_levels`` and
        ``invdiff_innovation_scales`` (noise levels, and the factors of the prior's covariance that
        the data asked for there) with the verdict ``invdiff_prior_fit``;
        ``invdiff_weights`` (carried, dropped or none), ``invdiff_effective_number`` (a share of the
        particles; NaN without weights), and ``invdiff_log_evidence`` of carried weights.

    Raises:
        ShapeError: Data, operator and prior that do not live on matching grids.
        DTypeError: Real data for a complex operator or the reverse.
        NonFiniteError: NaN or Inf in the data.
        NoiseLevelError: No noise level, or one that is not positive.
        UnsupportedError: Objects of the wrong kind, or a conditioning or sampler that cannot use
            the operator or a term.
        InputError: Other arguments out of range, or a checkpoint of another run.

    Warns:
        CalibrationWarning: A method that is known to draw too narrow an ensemble, a data misfit
            that the noise does not explain, a prior that states its error wrongly, or weights that
            were dropped.
        DataFitWarning: A data misfit far from 1.
        DataWarning: Values that are not zero where the operator does not measure; the attribute
            ``invdiff_unmeasured_values`` counts them.

    Examples:
        >>> import torch
        >>> import invdiff
        >>> from invdiff.operators.linear import Mask
        >>> from invdiff.priors.gaussian import StationaryGaussianPrior
        >>> grid = invdiff.Grid(("y", "x"), (8, 8))
        >>> prior = StationaryGaussianPrior(grid, torch.zeros(8, 8), torch.ones(8, 8))
        >>> keep = torch.arange(64).reshape(8, 8) % 2 == 0
        >>> y = grid.to_dataarray(keep * 1.5, "y")
        >>> posterior = invdiff.reconstruct(y, Mask(grid, keep), prior, seed=0, noise_std=0.5)
        >>> dict(posterior["image"].sizes)
        {'realization': 16, 'y': 8, 'x': 8}
    """
    problem, prior = given_problem(y, operator, prior)
    scale = as_number("scale", problem.scale if scale is None else scale)
    members, seed = member_numbers(realizations), as_integer("seed", seed, least=0)
    batch_size = min(as_integer("batch_size", batch_size, least=1), len(members))
    where = as_device(device)
    _check_name(name, prior.grid)
    term, law = _likelihood(y, problem, scale, noise_std=noise_std, law=likelihood, device=where)
    prior = moved(prior, where)
    posterior = Posterior(prior, term, *_terms(terms), conditioning=conditioning)
    sampler = sampler or default_sampler(posterior, device=device)
    warn_if_narrow(sampler, posterior.conditioning)
    drawn = ensemble(
        posterior,
        sampler,
        realizations=members,
        seed=seed,
        batch_size=batch_size,
        device=device,
        checkpoint=checkpoint,
        progress=progress,
    )
    misfit = torch.cat([term.misfit(part) for part in drawn.fields.split(batch_size)])
    settings: dict[str, object] = {
        "seed": seed,
        "sampler": sampler,
        "conditioning": "the sampler's own" if isinstance(sampler, UsesTerms) else posterior.method,
        "operator": problem.operator,
        "noise_std": law,
        "scale": scale,
        "batch_size": batch_size,
        "device": str(device),
        **problem.notes,
        **_weighting(drawn),
        **run_verdicts(misfit, term.operator.n_data, drawn.innovations),
    }
    # Equal grids may differ in their labels: those of the operator take precedence.
    grid = replace(prior.grid, coords={**prior.grid.coords, **problem.operator.domain.coords})
    attrs = provenance(prior, settings)
    return ensemble_dataset(
        drawn.fields * scale, misfit, grid, numbers=members, name=name, attrs=attrs
    )


def _likelihood(
    y: xr.DataArray | Problem,
    problem: Problem,
    scale: float,
    *,
    noise_std: GivenNoise | None,
    law: Callable[[Tensor, Operator], Likelihood] | None,
    device: torch.device,
) -> tuple[Likelihood, object]:
    """The likelihood of fields in the prior's units, and the noise for the attributes."""
    if problem.weights is not None:
        raise InputError(
            "reconstruct takes no weights",
            got="a Problem with weights",
            expected="a noise level for each sample: noise_std / weights",
        )
    operator, data = moved(problem.operator, device), problem.data.to(device)
    if completed(operator).n_data < 1:
        raise InputError(
            "the operator measures nothing",
            got=repr(operator),
            expected="one datum or more",
            hint="Check that True means measured. For draws of the prior alone use"
            " invdiff.samplers.sample(prior, sampler, ...).",
        )
    if law is not None:
        term = _other_law(law, data, rescaled(operator, scale), noise_std)
        return term, term
    noise = noise_model(noise_std, y, operator.range)
    term = Gaussian(data / scale, operator, _rescaled(noise, scale, device))
    return term, noise if isinstance(noise, float) else type(noise).__name__


def _other_law(
    law: Callable[[Tensor, Operator], Likelihood],
    data: Tensor,
    operator: Operator,
    noise_std: object,
) -> Likelihood:
    """The likelihood of a noise law that the caller brought."""
    if noise_std is not None:
        raise InputError(
            "the noise is given twice",
            got=f"noise_std={noise_std!r} and a likelihood",
            expected="one of them",
            hint="Give the level to the law: functools.partial(StudentT, noise_std=...).",
        )
    try:
        signature(law).bind(data, operator)
    except TypeError as error:  # of the call, not of what happens inside of it
        raise _not_a_law(law, str(error)) from error
    term = law(data, operator)
    if not isinstance(term, Likelihood):
        raise _not_a_law(law, f"it returned {term!r}")
    return term


def _not_a_law(law: object, why: str) -> UnsupportedError:
    return UnsupportedError(
        "the likelihood is not a noise law",
        got=f"{law!r} ({why})",
        expected="a callable of data and operator that returns a Likelihood",
        hint="Such as Poisson, or functools.partial(StudentT, noise_std=0.1); Gaussian noise is"
        " given by noise_std alone.",
    )


def _terms(terms: object) -> tuple[Term, ...]:
    """The further terms; `Posterior` checks what they are."""
    if not isinstance(terms, Iterable) or isinstance(terms, str):
        raise UnsupportedError(
            "terms are not a sequence",
            got=repr(terms),
            expected="a list of terms, such as terms=[term], or () for none",
        )
    return tuple(terms)


def _check_name(name: object, grid: Grid) -> None:
    """Refuse a name that another variable or a dim of the result has."""
    taken = ("mean", "std", "data_misfit", "realization", *grid.dims)
    if not isinstance(name, str) or not name or name in taken:
        raise InputError(
            "the members cannot have this name",
            got=f"name={name!r}",
            expected=f"text other than {', '.join(taken)}",
            hint="Name the physical quantity, such as 'image' or 'temperature'.",
        )


def _weighting(drawn: Ensemble) -> dict[str, object]:
    """What became of the weights, which give separate modes their probabilities.

    Warns:
        CalibrationWarning: The weights were dropped during the run.
    """
    if drawn.effective_number is None or drawn.log_evidence is None:
        return {"weights": _NO_WEIGHTS, "effective_number": math.nan}
    if not math.isnan(drawn.log_evidence):
        share = {"effective_number": round(drawn.effective_number, 4)}
        return {"weights": "carried", "log_evidence": drawn.log_evidence} | share
    warnings.warn(
        "The weights of the particles were dropped during the run, since no ensemble of this size"
        " could carry them: if the posterior has separate modes, their probabilities are those of"
        " independent members and may be far off. More particles (TwistedSMC(particles=...)) may"
        " carry them.",
        CalibrationWarning,
        stacklevel=3,
    )
    return {"weights": "dropped", "effective_number": math.nan}


def _rescaled(noise: NoiseModel, scale: float, device: torch.device) -> NoiseModel:
    """The noise model of data divided by ``scale``."""
    if isinstance(noise, AxisCovariance):
        return AxisCovariance(noise.matrix / scale**2, noise.dim)
    if isinstance(noise, Tensor):
        return noise.to(device) / scale
    if callable(noise):
        whiten = noise
        return lambda r: whiten(r * scale)
    return float(noise) / scale
