"""Does an expected error tell the true one? Fitted where the truth is known, judged where it is, too.

Arrays are of voxels (N,); errors are absolute, as shares of the range of values.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from hmf_networks.transforms.expected_error import COVERAGES, FEATURES, POOLED
from numpy.typing import NDArray
from scipy import integrate, stats

Floats = NDArray[np.float64]

RIDGE = 1e-4  # of all targets together, a voxel
RIDGE_TO_POOLED = 1e-2  # of one target towards them: what it has no data for stays theirs
NUM_STEPS = 100
REMOVED = np.linspace(0, 0.95, 20)  # shares of voxels, the least sure first


class Sample(NamedTuple):
    """Voxels of one synthesised volume: their features (N, F) and true errors (N,)."""

    target: str
    features: Floats
    errors: Floats


def fit_calibration(samples: Sequence[Sample]) -> dict[str, Any]:
    """Coefficients and factors of all targets together and of each, for model.json."""
    parts = {POOLED: list(samples)}
    for sample in samples:
        parts.setdefault(sample.target, []).append(sample)
    coefficients: dict[str, list[float]] = {}
    factors = {}
    for name, some in parts.items():
        features = np.concatenate([sample.features for sample in some])
        errors = np.concatenate([sample.errors for sample in some])
        pooled = coefficients.get(POOLED)
        fitted = fit_scale(
            features,
            errors,
            prior=None if pooled is None else np.array(pooled),
            ridge=RIDGE if pooled is None else RIDGE_TO_POOLED,
        )
        coefficients[name] = np.round(fitted, 5).tolist()
        factors[name] = fit_factors(errors, scale_of(features, coefficients[name]))
    return {
        "features": list(FEATURES),
        "coefficients": coefficients,
        "factors": factors,
        "volumes": len(samples),
        "voxels": sum(len(sample.errors) for sample in samples),
    }


def fit_scale(features: Floats, errors: Floats, *, prior: Floats | None = None, ridge: float = RIDGE) -> Floats:
    """Coefficients w of mean |error| = exp(features @ w): maximum likelihood of a Laplace scale.

    Its negative log likelihood, sum(features @ w + errors * exp(-features @ w)), is convex; Fisher scoring,
    whose matrix does not depend on w, with halved steps. The ridge holds w to the prior, 0 by default.
    """
    count, size = features.shape
    start = np.zeros(size) if prior is None else prior
    w = start.copy()
    if prior is None and np.ptp(features[:, 0]) == 0:
        w[0] = np.log(max(errors.mean(), 1e-6)) / features[0, 0]
    information = features.T @ features / count + ridge * np.eye(size)

    def cost(w: Floats) -> float:
        exponent = np.clip(features @ w, -50, 50)
        return float(np.mean(exponent + errors * np.exp(-exponent)) + ridge / 2 * np.sum((w - start) ** 2))

    now = cost(w)
    for _ in range(NUM_STEPS):
        ratio = errors * np.exp(-np.clip(features @ w, -50, 50)) - 1
        step = np.linalg.solve(information, features.T @ ratio / count - ridge * (w - start))
        while (then := cost(w + step)) > now and np.abs(step).max() > 1e-9:
            step = step / 2
        if then > now:
            break
        w, gain, now = w + step, now - then, then
        if gain < 1e-10:
            break
    return w


def scale_of(features: Floats, coefficients: Sequence[float]) -> Floats:
    """As `transforms.expected_error.expected_error`, of voxels."""
    return np.exp(np.minimum(features @ np.asarray(coefficients), 0))


def fit_factors(errors: Floats, expected: Floats) -> dict[str, float]:
    """Percent -> k: of so many errors none is larger than k times what was expected."""
    ratio = errors / np.maximum(expected, 1e-12)
    return {str(percent): round(float(np.quantile(ratio, percent / 100)), 4) for percent in COVERAGES}


def coverage(errors: Floats, expected: Floats, factors: Mapping[str, float]) -> dict[str, float]:
    """Percent -> which share of errors is within that factor's interval."""
    return {percent: float(np.mean(errors <= k * expected)) for percent, k in factors.items()}


def rank_correlation(expected: Floats, errors: Floats) -> float:
    """Spearman's; nan where one of them is the same all over."""
    if np.ptp(expected) == 0 or np.ptp(errors) == 0:
        return float("nan")
    return float(stats.spearmanr(expected, errors).statistic)


class Sparsification(NamedTuple):
    """Mean error of what stays when the least sure voxels go, by the mean of all; see `sparsification`.

    Attributes:
        curve: by the expected error.
        oracle: by the true error.
        ause: area between the two; 0 is perfect.
        random: the same area for a random order.
    """

    curve: list[float]
    oracle: list[float]
    ause: float
    random: float


def sparsification(errors: Floats, expected: Floats) -> Sparsification:
    """After removing REMOVED of the voxels (Ilg et al. 2018)."""
    curve, oracle = (_remaining(errors, order) for order in (expected, errors))
    width = REMOVED[-1] - REMOVED[0]
    ause, random = (
        float(integrate.trapezoid(line - oracle, REMOVED) / width) for line in (curve, np.ones_like(oracle))
    )
    return Sparsification(curve.tolist(), oracle.tolist(), ause, random)


def _remaining(errors: Floats, by: Floats) -> Floats:
    ordered = errors[np.argsort(by, kind="stable")]
    means = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    kept = np.maximum(1, np.round((1 - REMOVED) * len(ordered)).astype(int))
    return means[kept - 1] / max(float(means[-1]), 1e-12)


def judged(errors: Floats, expected: Floats, factors: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """All of the above; factors for each voxel's volume, of equally many voxels each."""
    parts = zip(np.split(errors, len(factors)), np.split(expected, len(factors)), factors, strict=True)
    covered = [coverage(*part) for part in parts]
    return {
        "voxels": len(errors),
        "mean_error": float(errors.mean()),
        "mean_expected": float(expected.mean()),
        "spearman": rank_correlation(expected, errors),
        "sparsification": sparsification(errors, expected)._asdict(),
        "coverage": {p: float(np.mean([one[p] for one in covered])) for p in (covered[0] if covered else {})},
    }
