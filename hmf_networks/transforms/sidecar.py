"""What the JSON beside a synthetic volume says, and that beside its expected error.

A sample is that of `SaveSynthesisd`, with the `target` that is told of; `made_with` are entries of both.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hmf_networks.naming import GENERATOR
from hmf_networks.transforms.expected_error import interval_factors
from hmf_networks.transforms.intensity import OUTPUT_MAXIMUM
from monai.data import MetaTensor

LARGEST_BRAIN_MM3 = 2.0e6  # with its fluid; a head with skull has 3 litres and more
WARNINGS = {
    "t1c": "Enhancement cannot be computed from other contrasts: where a contrast agent would go is not "
    "known, and what looks bright or dark here says nothing about it."
}
CALIBRATED = (
    "Expected absolute error of the synthetic volume beside it, in its units "
    f"(0..{OUTPUT_MAXIMUM:g}). The percentages of IntervalFactors tell how many of the true values are "
    "expected within value +- factor * error. It was fitted on few patients and knows nothing of disease "
    "that the sources do not show. Not for diagnosis."
)
SPREAD = (
    f"Standard deviation of a small ensemble, in the units of the volume beside it (0..{OUTPUT_MAXIMUM:g}): "
    "where it is large the synthesis hangs on little. The weights hold no calibration, so it is no error "
    "that could be expected. Not for diagnosis."
)


def volume_sidecar(
    sample: Mapping[Any, Any], content_hash: str, source_hashes: Mapping[str, str], made_with: Mapping[str, Any]
) -> dict[str, Any]:
    target, paths = sample["target"], source_paths(sample)
    names: Any = {name: Path(path).name for name, path in paths.items()}
    if sample.get("layout") == "bids":
        names = [bids_name(Path(path)) for path in paths.values()]
    return {
        "Description": f"Synthetic {target}: computed from other contrasts, not acquired. Not for diagnosis.",
        **({"Warning": WARNINGS[target]} if target in WARNINGS else {}),
        "Sources": names,
        "Target": target,
        "IntensityMap": f"value = (network output + 1) / 2 * {OUTPUT_MAXIMUM:g}, clipped to 0..{OUTPUT_MAXIMUM:g}",
        "Sha256": content_hash,
        "SourcesSha256": dict(source_hashes),
        **made_with,
        **({"Familiarity": sample["familiarity"]} if "familiarity" in sample else {}),
        "GeneratedBy": GENERATOR,
    }


def error_sidecar(
    sample: Mapping[Any, Any],
    path: Path,
    content_hash: str,
    volume_hash: str,
    made_with: Mapping[str, Any],
    calibration: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Of the expected error of the volume at `path`; without a calibration, of the spread of an ensemble."""
    target = sample["target"]
    factors = {} if calibration is None else interval_factors(calibration, target)
    return {
        "Description": CALIBRATED if factors else SPREAD,
        "Measure": "expected absolute error" if factors else "standard deviation of an ensemble",
        "Calibrated": bool(factors),
        **({"IntervalFactors": factors} if factors else {}),
        "Sources": [bids_name(path)] if sample.get("layout") == "bids" else {target: path.name},
        "Target": target,
        "Sha256": content_hash,
        "VolumeSha256": volume_hash,
        **made_with,
        "GeneratedBy": GENERATOR,
    }


def as_text(sidecar: Mapping[str, Any]) -> str:
    return json.dumps(sidecar, indent=2) + "\n"


def source_paths(sample: Mapping[Any, Any]) -> dict[str, str]:
    return dict(zip(sample["source_names"], sample["source_paths"], strict=True))


def is_brain_alone(image: torch.Tensor) -> bool:
    """Whether what is not background in the first channel of (S, X, Y, Z) is small enough for a brain."""
    voxel_mm3 = abs(np.linalg.det(image.affine[:3, :3].numpy())) if isinstance(image, MetaTensor) else 1.0
    return float((image[0] > -1).sum()) * float(voxel_mm3) < LARGEST_BRAIN_MM3


def bids_name(path: Path) -> str:
    """sub-01/anat/sub-01_T1w.nii.gz: from the folder of the subject on; else the name alone."""
    folders = [number for number, part in enumerate(path.parts[:-1]) if part.startswith("sub-")]
    return "/".join(path.parts[folders[-1] if folders else -1 :])
