"""Extra terms: each moves its statistic, and the rest by no more than Bayes' rule says.

``python -m benchmarks.extra_terms [--quick]``. A budget, a classifier trained on labelled draws of
the prior, and parity between two labelled groups of points are added to posteriors known in closed
form, on 8 x 8 points. With a quadratic term a Gaussian posterior is Gaussian again; elsewhere
exact draws without the term are weighted by it. The rest is the field less its part along the rows
that the statistic reads.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from benchmarks.methods import Counted
from benchmarks.table import markdown, write_table
from invdiff.errors import InvdiffError
from invdiff.posterior import Posterior
from invdiff.priors.mixture import GaussianMixturePrior
from invdiff.protocols import Sampler, Term
from invdiff.samplers import Ancestral, SplitGibbs, default_sampler, ensemble
from invdiff.samplers.resampling import effective_number
from invdiff.terms import Classifier, Conservation, GroupFairness
from tests.support.closed_form import (
    GaussianProblem,
    gaussian_problem,
    kalman,
    mixture_prior,
    normal,
)
from tests.support.distances import coverage
from tests.support.referee import Case, mixture_case8

__all__ = ["Demonstration", "demonstrations", "rows_of"]

N = 8
N_EXACT, N_PROPOSALS, LEAST_EFFECTIVE = 4096, 200_000, 4000
T = torch.zeros((), dtype=torch.float64)
Row = dict[str, object]

# --- demonstrations -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Demonstration:
    """A term for a problem, what it acts on, and exact draws with it.

    ``statistic`` makes one number of a field and depends on it along ``rows`` ``(k, N * N)``.
    """

    name: str
    problem: GaussianProblem | Case
    term: Term
    statistic: Callable[[Tensor], Tensor]
    rows: Tensor = field(repr=False)
    without: Tensor = field(repr=False)
    exact: Tensor = field(repr=False)

    def rest(self, x: Tensor) -> Tensor:
        """Fields less their part along the rows, where something is left."""
        basis = torch.linalg.qr(self.rows.mT).Q
        left = 1 - basis.square().sum(1) > 1e-9
        flat = x.flatten(1)
        return (flat - flat @ basis @ basis.mT)[:, left]


@cache
def gaussian() -> GaussianProblem:
    """A Gaussian field half of whose points are seen."""
    return gaussian_problem("inpainting", 0.3, n=N)


@cache
def mixture() -> Case:
    """A mixture of five modes of which two points are seen; three modes are left."""
    return mixture_case8("inpainting")


def quadratic(
    name: str, row: Tensor, make: Callable[[float, float], Term], *, width: float, aim: float | None
) -> Demonstration:
    """A Gaussian term in ``row x``, ``(1, N * N)``.

    ``make`` takes a target and a standard deviation of ``row x``: ``width`` posterior deviations,
    and ``aim`` of them above the posterior mean, or zero if that is None.
    """
    problem = gaussian()
    own = float((row @ problem.covariance @ row.mT).squeeze()) ** 0.5
    before, std = float((row @ problem.mean).squeeze()), width * own
    target = 0.0 if aim is None else before + aim * own
    innovation = torch.tensor([target - before], dtype=torch.float64)
    shift, covariance = kalman(problem.covariance, row, innovation, std)
    return Demonstration(
        f"{name}, width {width:g}",
        problem,
        make(target, std),
        lambda x: (x.flatten(1) @ row.mT)[:, 0],
        rows=row,
        without=gaussian_draws(problem.mean, problem.covariance, seed=1),
        exact=gaussian_draws(problem.mean + shift, covariance, seed=2),
    )


def gaussian_draws(mean: Tensor, covariance: Tensor, *, seed: int) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp_min(0).sqrt()
    return (mean + normal((N_EXACT, N * N), seed) @ root.mT).reshape(-1, N, N)


def weighted(
    name: str,
    term: Term,
    statistic: Callable[[Tensor], Tensor],
    *,
    rows: Tensor,
) -> Demonstration:
    """Any term on the mixture; exact draws by importance weighting."""
    case = mixture()
    assert case.modes is not None
    proposals = case.modes.exact_draws(N_PROPOSALS, seed=4)
    log_weights = term.log_prob(proposals, proposals, T)
    n_effective = effective_number(log_weights)
    if n_effective < LEAST_EFFECTIVE:
        raise RuntimeError(f"{name}: only {n_effective:.0f} effective draws of the exact posterior")
    shares = torch.softmax(log_weights, 0).numpy()
    kept = np.random.default_rng(5).choice(N_PROPOSALS, N_EXACT, p=shares)
    exact = proposals[torch.from_numpy(kept)]
    return Demonstration(name, case, term, statistic, rows, case.reference, exact)


def conservation(width: float) -> Demonstration:
    """The sum of the field, two posterior deviations above what the data say."""
    row = torch.ones(1, N * N, dtype=torch.float64)
    return quadratic("conservation", row, Conservation, width=width, aim=2.0)


def labelled(score: Tensor, *, n: int = 24) -> Tensor:
    """``n`` points in two groups, membership correlated with a field: labels 1 and 2, others 0."""
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.choice(N * N, n, replace=False))
    chance = torch.sigmoid(3 * score.flatten()[points])
    groups = torch.zeros(N * N, dtype=torch.int64)
    groups[points] = 1 + (torch.from_numpy(rng.random(n)) < chance).long()
    return groups.reshape(N, N)


def parity(width: float) -> Demonstration:
    """Equal means of two groups, whose means differ without the term."""
    groups = labelled(gaussian().mean)
    members = torch.stack([(groups == g).double().flatten() for g in (1, 2)])
    row = (members / members.sum(1, keepdim=True)).diff(dim=0)
    # Two groups cost (f_1 - f_2)^2 / (4 s^2).
    return quadratic(
        "parity of means",
        row,
        lambda _, std: GroupFairness(groups, std / 2**0.5),
        width=width,
        aim=None,
    )


def decisions(width: float) -> Demonstration:
    """Equal shares of smooth decisions ``sigmoid(4 x)`` in two groups."""
    case = mixture()
    groups = labelled(case.mean.reshape(N, N))

    def decide(x: Tensor) -> Tensor:
        return torch.sigmoid(4 * x)

    def gap(x: Tensor) -> Tensor:
        return GroupFairness(groups, 1.0, decide).statistic(x).diff(dim=1)[:, 0]

    std = width * float(gap(case.reference).std())
    return weighted(
        f"parity of decisions, width {width:g}",
        GroupFairness(groups, std / 2**0.5, decide),
        gap,
        rows=torch.eye(N * N, dtype=torch.float64)[(groups > 0).flatten()],
    )


def classifier(scale: float) -> Demonstration:
    """One mode of the mixture, by logistic regression on 400 labelled draws of the prior."""
    weight, bias = logistic_regression(mixture_prior(), label=1, n=400)

    def log_prob_of(x: Tensor) -> Tensor:
        return logsigmoid(x.flatten(1) @ weight + bias)

    return weighted(
        f"classifier, scale {scale:g}",
        Classifier(log_prob_of, scale),
        lambda x: log_prob_of(x).exp(),
        rows=weight[None],
    )


def logistic_regression(
    prior: GaussianMixturePrior, *, label: int, n: int, ridge: float = 0.02
) -> tuple[Tensor, Tensor]:
    """Weights and bias that tell one component from the others, by L-BFGS."""
    x = prior.exact_draws(n, seed=3)
    t = prior.schedule.timesteps(8)[-2]  # next to no noise: the component that drew x
    truth = (prior.responsibilities(x, t).argmax(1) == label).double()
    parameters = torch.zeros(N * N + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        logits = x.flatten(1) @ parameters[:-1] + parameters[-1]
        penalty = ridge / 2 * parameters[:-1].square().sum()
        value = binary_cross_entropy_with_logits(logits, truth) + penalty
        value.backward()
        return value

    optimiser.step(loss)
    return parameters[:-1].detach(), parameters[-1].detach()


def demonstrations() -> list[Callable[[], Demonstration]]:
    """Wide and narrow terms of each kind."""
    kinds: tuple[tuple[Callable[[float], Demonstration], tuple[float, ...]], ...] = (
        (conservation, (2.0, 1.0, 0.1)),
        (parity, (2.0, 1.0, 0.1)),
        (decisions, (0.5,)),
        (classifier, (1.0, 3.0)),
    )
    return [partial(make, value) for make, values in kinds for value in values]


# --- rows -----------------------------------------------------------------------------------------

OTHERS: dict[str, Sampler] = {
    "Ancestral(24)": Ancestral(24),
    "SplitGibbs(32, rho_min=0.1)": SplitGibbs(rho_min=0.1),
}


def rows_of(d: Demonstration, *, members: int) -> list[Row]:
    """Exact draws and ensembles, without the term and with it."""
    plain = (d.problem.term,)
    runs: list[tuple[str, tuple[Term, ...], Sampler | None]] = [
        ("without: default", plain, None),
        ("with: default", (*plain, d.term), None),
    ]
    runs += [(f"with: {name}", (*plain, d.term), sampler) for name, sampler in OTHERS.items()]
    rows = []
    for label, exact in (("exact without", d.without), ("exact with", d.exact)):
        rows.append({"case": d.name, "method": label} | statistics(d, exact))
        rows[-1] |= scores(d, exact[:members], exact)
    for name, terms, sampler in runs:
        row: Row = {"case": d.name, "method": f"invdiff {name}"}
        exact = d.without if terms == plain else d.exact
        try:
            found, price = run(d.problem, terms, sampler, members=members)
        except InvdiffError as error:
            rows.append(row | {"failed": str(error).split(";")[0]})
        else:
            rows.append(row | statistics(d, found) | scores(d, found, exact) | price)
    return rows


@cache
def run(
    problem: GaussianProblem | Case,
    terms: tuple[Term, ...],
    sampler: Sampler | None,
    *,
    members: int,
) -> tuple[Tensor, Row]:
    """An ensemble, its price, and whether its weights were carried to the end."""
    prior = Counted(problem.prior)
    model = Posterior(prior, *terms)
    sampler = sampler or default_sampler(model)
    prior.passes, start = 0, time.perf_counter()
    found = ensemble(model, sampler, realizations=members, seed=1, batch_size=members)
    seconds = (time.perf_counter() - start) / members
    price: Row = {"passes": prior.passes / members, "seconds": seconds}
    if found.log_evidence is not None:
        price["weights"] = "dropped" if math.isnan(found.log_evidence) else "carried"
    return found.fields, price


def statistics(d: Demonstration, draws: Tensor) -> Row:
    """The statistic, and how far the mean of the rest moved: rms, in deviations without term."""
    values, rest, before = d.statistic(draws), d.rest(draws), d.rest(d.without)
    shift = (rest.mean(0) - before.mean(0)) / before.std(0)
    return {
        "statistic": float(values.mean()),
        "statistic_std": float(values.std()),
        "rest_shift": float(shift.square().mean().sqrt()),
    }


def scores(d: Demonstration, draws: Tensor, exact: Tensor) -> Row:
    """The rest of an ensemble against that of exact draws."""
    rest, reference = d.rest(draws), d.rest(exact)
    return {
        "coverage90": coverage(rest, reference, 0.9),
        "std_ratio": float((rest.std(0) / reference.std(0)).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few members; writes no result")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rows = []
    for make in demonstrations():
        found = rows_of(make(), members=16 if quick else 128)
        print(markdown(found), flush=True)
        rows += found
    if not quick:  # the committed table is that of the full run
        write_table("extra_terms", rows, command="python -m benchmarks.extra_terms", notes=NOTES)


NOTES = """\
`width`: the deviation that a term allows its statistic, in units of that of the posterior without \
the term. `statistic`: the sum; the gap between the groups; the probability of the label. *Exact* \
rows are of 4096 draws, their coverage and spread of as many as an ensemble has. The rest is the \
field less its part along the rows that the statistic reads: `rest_shift` is how far the term \
moves its mean (rms over points, in deviations without the term; chance alone makes about 0.09), \
`coverage90` and `std_ratio` compare it with the exact posterior *with* the term. `weights`: \
whether the particles' weights lasted; *dropped*, the default continues as `Ancestral()` does.
"""


if __name__ == "__main__":
    main()
