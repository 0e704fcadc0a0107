"""What is done to a study, step by step: transforms of `transforms/prepare.py`, in their order."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from hmf_networks.naming import CONTRASTS, check_contrasts, unknown_word
from hmf_networks.preparation.brain import TOOLS
from hmf_networks.preparation.scan import Affine, Scan
from hmf_networks.transforms.prepare import (
    PREPARED,
    CorrectBiasd,
    ExtractBrainOfAlld,
    RegisterContrastsd,
    RegridContrastsd,
    choose_reference,
    scan_of,
    tensor_of,
)
from scipy import ndimage


@dataclass(frozen=True)
class Steps:
    """Which steps are taken.

    Attributes:
        bias: N4 of each contrast.
        register: lay all onto the reference.
        regrid: bring all to its voxels.
        brain: a tool of `preparation.brain.TOOLS`, or "" to leave the skull on.
        reference: a contrast; "" for that with the finest voxels.
    """

    bias: bool = True
    register: bool = True
    regrid: bool = True
    brain: str = ""
    reference: str = ""

    def __post_init__(self) -> None:
        check_contrasts([self.reference] if self.reference else [])
        if self.brain and self.brain not in TOOLS:
            raise ValueError(unknown_word("brain tool", self.brain, TOOLS))
        if self.brain and not self.regrid:
            raise ValueError("the brain is taken out of contrasts on one grid; leave out --no-regrid")

    def settings(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Ready:
    """A study that is ready.

    Attributes:
        scans: by contrast.
        own: the same before registration, on the grids as acquired.
        fields: bias fields by contrast, on the grids as acquired.
        notes: step -> contrast -> figures.
        reference: the contrast that stayed where it was.
    """

    scans: Mapping[str, Scan]
    own: Mapping[str, Scan]
    fields: Mapping[str, Scan]
    notes: Mapping[str, Mapping[str, Mapping[str, Any]]]
    reference: str


def take(steps: Steps, scans: Mapping[str, Scan]) -> Ready:
    """All steps, on scans by contrast.

    Raises:
        VolumeError: a step that fails, e.g. E_REGISTRATION.
        ValueError: the reference is not there.
    """
    sample: dict[Any, Any] = {name: tensor_of(scans[name], named=name) for name in CONTRASTS if name in scans}
    reference = choose_reference(sample, list(sample), steps.reference or None)
    names = list(sample)
    if steps.bias:
        sample = CorrectBiasd(keep_fields=True)(sample)
    own = {name: scan_of(sample[name]) for name in names}
    if steps.register:
        sample = RegisterContrastsd(reference=reference)(sample)
    laid = {name: scan_of(sample[name]).affine for name in names}
    if steps.regrid:
        sample = RegridContrastsd(reference=reference)(sample)
    if steps.brain:
        sample = ExtractBrainOfAlld(tool=steps.brain)(sample)
        own = {name: _brain_of(scan, laid[name], scan_of(sample["brain"])) for name, scan in own.items()}
    return Ready(
        {name: scan_of(sample[name]) for name in names},
        own,
        {name: scan_of(sample[f"{name}_bias"]) for name in names if f"{name}_bias" in sample},
        sample.get(PREPARED, {}),
        reference,
    )


def _brain_of(scan: Scan, laid: Affine, brain: Scan) -> Scan:
    """A scan on its own grid without its skull; `laid` is its matrix where it lies on the brain."""
    to_brain = np.linalg.inv(brain.affine) @ laid
    inside = ndimage.affine_transform(brain.values, to_brain[:3, :3], to_brain[:3, 3], scan.values.shape, order=1)
    return Scan(np.where(inside > 0.5, scan.values, np.float32(0)), scan.affine)
