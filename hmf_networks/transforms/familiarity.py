"""Are the sources like what the network was made for? A few features of them, and how far they are off.

What is usual travels in model.json: `{"features": {name: {"mean", "sd"}}, "correlation": [[...]], "limit"}`.
It says nothing about disease: a tumour in a usual scan is familiar, a healthy head in an odd scan is not.

Shapes: image (S, X, Y, Z) in [-1, 1], background -1.
"""

import itertools
import logging
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from hmf_networks.naming import CONTRASTS, subject_name
from hmf_networks.transforms.slices import voxel_spacing_mm
from monai.transforms import MapTransform
from numpy.typing import NDArray
from torch import Tensor

logger = logging.getLogger(__name__)

QUANTILES = (10, 50, 90)  # percent
NUM_VOXELS = 400_000  # at most, for quantiles
PRIOR_SD, PRIOR_SCANS = 0.15, 3  # of every feature: a handful of scans shows less variety than there is
LEAST_STEP = 1e-3  # below it noise is none
SHRINKAGE = 0.5  # of correlations towards none: features are about as many as scans
LIMIT_QUANTILE = 0.99  # of the distances of scans that were left out
USUAL_SDS = 2.0
THREE_IN_A_ROW = (slice(None, -2), slice(1, -1), slice(2, None))

Features = dict[str, float]


def source_features(image: NDArray[np.float32], names: Sequence[str], spacing_mm: Sequence[float]) -> Features:
    """What each source looks like, how two go together, how large the head is and its voxels are.

    A name begins with the contrasts that it needs.
    """
    found: Features = {}
    inside: NDArray[np.bool_] = np.asarray((image > -1).any(axis=0))
    if not inside.any():
        return found
    box = tuple(_occupied(inside, axis) for axis in range(3))
    cut = image[(slice(None), *box)]
    for name, channel in zip(names, cut, strict=True):
        found |= _of_one(name, channel)
    for (one, a), (other, b) in itertools.combinations(zip(names, cut, strict=True), 2):
        both = (a > -1) & (b > -1)
        if both.any() and a[both].std() > 0 and b[both].std() > 0:
            found[f"{one}/{other} correlation"] = float(np.corrcoef(a[both], b[both])[0, 1])
    sizes = zip(("width", "depth", "height"), cut.shape[1:], spacing_mm, strict=True)
    found |= {f"log {extent} in mm": math.log(size * mm) for extent, size, mm in sizes}
    found["log volume in ml"] = math.log(float(inside.sum()) * math.prod(spacing_mm) / 1e3)
    found["log pixel in mm"] = math.log(float(np.median(spacing_mm)))
    found["log slice in mm"] = math.log(max(spacing_mm))
    return found


def _of_one(name: str, channel: NDArray[np.float32]) -> Features:
    inside = channel > -1
    values = channel[inside]
    if not len(values):
        return {}
    levels = np.percentile(values[:: 1 + len(values) // NUM_VOXELS], QUANTILES)
    found = {f"{name} {q} % level": float(level) for q, level in zip(QUANTILES, levels, strict=True)}
    steps, bends = [], []
    for axis in range(3):
        before, here, after = (np.moveaxis(channel, axis, 0)[part] for part in THREE_IN_A_ROW)
        alike = (before > -1) & (here > -1) & (after > -1)
        if alike.any():
            steps.append(float(np.abs(after - here)[alike].mean()))
            bends.append(float(np.median(np.abs(before - 2 * here + after)[alike])))
    if steps:  # of the finest axis
        found[f"{name} log contrast of neighbours"] = math.log(max(min(steps), LEAST_STEP))
        found[f"{name} log noise"] = math.log(max(min(bends), LEAST_STEP))
    return found


def _occupied(inside: NDArray[np.bool_], axis: int) -> slice:
    where = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
    return slice(int(where[0]), int(where[-1]) + 1)


def fit_familiarity(scans: Sequence[Features], groups: Sequence[str]) -> dict[str, Any]:
    """What is usual, from the features of scans; those of one group (a patient) are no two witnesses.

    The limit is what nearly all scans keep, whatever of their contrasts is given, when their group was left
    out of what is usual.
    """
    if len(set(groups)) < 3:
        raise ValueError(f"{len(set(groups))} patient(s) do not show what is usual; give three or more")
    distances = []
    for group in dict.fromkeys(groups):
        others = _usual([scan for scan, of in zip(scans, groups, strict=True) if of != group])
        for scan, of in zip(scans, groups, strict=True):
            if of == group:
                distances += [judge(part, others)["distance"] for part in _with_fewer_sources(scan)]
    limit = float(np.quantile(distances, LIMIT_QUANTILE))
    return _usual(scans) | {"limit": round(limit, 3), "patients": len(set(groups)), "scans": len(scans)}


def _usual(scans: Sequence[Features]) -> dict[str, Any]:
    names = sorted({name for scan in scans for name in scan})
    table = np.array([[scan.get(name, math.nan) for name in names] for scan in scans])
    mean = np.nanmean(table, axis=0)
    count = np.isfinite(table).sum(axis=0)
    sd = np.sqrt((np.nanvar(table, axis=0) * count + PRIOR_SD**2 * PRIOR_SCANS) / (count + PRIOR_SCANS))
    z = np.nan_to_num((table - mean) / sd)  # what a scan lacks is as usual
    correlation = (1 - SHRINKAGE) * z.T @ z / len(scans)
    np.fill_diagonal(correlation, 1.0)
    features = {
        name: {"mean": round(float(m), 4), "sd": round(float(s), 4)} for name, m, s in zip(names, mean, sd, strict=True)
    }
    return {"features": features, "correlation": np.round(correlation, 3).tolist(), "limit": math.inf}


def _with_fewer_sources(scan: Features) -> Iterator[Features]:
    """What is left of its features when only some of its contrasts are given: one, two, or all."""
    there = sorted({name for feature in scan for name in _needed_by(feature)})
    for number in {1, 2, len(there)}:
        for given in itertools.combinations(there, min(number, len(there))):
            yield {feature: value for feature, value in scan.items() if _needed_by(feature) <= set(given)}


def _needed_by(feature: str) -> set[str]:
    return set(feature.partition(" ")[0].split("/")) & set(CONTRASTS)


def judge(scan: Features, usual: Mapping[str, Any]) -> dict[str, Any]:
    """{"familiar", "distance", "limit", "farthest", "value", "usual": [low, high]}.

    The distance is Mahalanobis's over the features that there are, by the root of their number: about 1 for
    a usual scan.
    """
    known = list(usual["features"])
    there = [index for index, name in enumerate(known) if name in scan]
    if not there:
        return {"familiar": True, "distance": 0.0, "limit": usual["limit"]}
    about = [usual["features"][known[index]] for index in there]
    values = [scan[known[index]] for index in there]
    z = np.array([(value - one["mean"]) / one["sd"] for value, one in zip(values, about, strict=True)])
    correlation = np.array(usual["correlation"])[np.ix_(there, there)]
    squared = float(z @ np.linalg.solve(correlation, z))
    distance = math.sqrt(max(0.0, squared) / len(there))
    worst = int(np.abs(z).argmax())
    mean, reach = about[worst]["mean"], USUAL_SDS * about[worst]["sd"]
    return {
        "familiar": distance <= usual["limit"],
        "distance": round(distance, 3),
        "limit": usual["limit"],
        "farthest": known[there[worst]],
        "value": round(values[worst], 4),
        "usual": [round(mean - reach, 4), round(mean + reach, 4)],
    }


def check_familiar(usual: Any) -> Mapping[str, Any]:
    """Raise ValueError for what cannot be relied on."""
    try:
        numbers = [float(one[key]) for one in usual["features"].values() for key in ("mean", "sd")]
        correlation = np.array(usual["correlation"], dtype=float)
        is_sound = (
            all(math.isfinite(number) for number in (*numbers, float(usual["limit"])))
            and all(one["sd"] > 0 for one in usual["features"].values())
            and correlation.shape == (len(usual["features"]),) * 2
            and bool(np.linalg.eigvalsh(correlation)[0] > 0)
        )
    except (TypeError, KeyError, ValueError, AttributeError, IndexError, np.linalg.LinAlgError):
        is_sound = False
    if not is_sound:
        raise ValueError(
            'what is "familiar" in the model.json of the weights cannot be used; fetch it again, or fit it '
            "again (benchmarks/calibrate.py fit)"
        )
    return usual


class JudgeFamiliarityd(MapTransform):
    """The verdict on the sources of a subject, as its `familiarity`; one warning where they are unusual.

    Args:
        keys: the image (S, X, Y, Z) in RAS+.
        sources: contrasts of its channels.
        familiar: what is usual, of model.json; None: nothing is judged.
    """

    def __init__(
        self, keys: str = "image", *, sources: Sequence[str], familiar: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(keys)
        self.sources = tuple(sources)
        self.familiar = None if familiar is None else check_familiar(familiar)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample: dict[Any, Any] = dict(data)
        if self.familiar is None:
            return sample
        image, names = sample[self.keys[0]], sample["source_names"]
        used = image.as_subclass(Tensor)[[self.sources.index(name) for name in names]].cpu().numpy()
        verdict = judge(source_features(used, names, voxel_spacing_mm(image)), self.familiar)
        if not verdict["familiar"]:
            logger.warning("%s: %s", subject_name(sample), told(verdict))
        return sample | {"familiarity": verdict}


def told(verdict: Mapping[str, Any]) -> str:
    """In one line, for people."""
    low, high = verdict["usual"]
    return (
        f"unlike what the network knows (distance {verdict['distance']:.1f}, limit {verdict['limit']:.1f}), "
        f"most of all its {verdict['farthest']}, {verdict['value']:.3g}, usual {low:.3g} to {high:.3g}; "
        "do not trust what is made of it unseen"
    )
