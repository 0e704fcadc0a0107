"""Which voxels are brain, told by a tool of one's choice. Shapes: volumes (X, Y, Z)."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import nibabel
import numpy as np
import torch
from hmf_networks.ops.brain_mask import brain_mask
from hmf_networks.preparation.scan import Scan, spacing_mm
from numpy.typing import NDArray

FLUID_IS_DARK = ("t1", "flair", "t1c")  # there bone and fluid part the brain from the scalp
HD_BET = "hd-bet"  # Isensee et al., Hum. Brain Mapp. 2019; for any contrast

Mask = NDArray[np.bool_]


def find_brain(scans: Mapping[str, Scan], tool: str) -> Mask:
    """Of contrasts on one grid.

    Raises:
        ValueError: the tool is not installed, cannot work on these contrasts, or finds none.
    """
    brain = TOOLS[tool](scans)
    if not brain.any():
        raise ValueError(f"{tool} finds no brain; leave the skull on, or give another tool")
    return brain


def _by_morphology(scans: Mapping[str, Scan]) -> Mask:
    dark = [scans[name] for name in FLUID_IS_DARK if name in scans]
    if not dark:
        raise ValueError(f"the morphological tool needs one of {', '.join(FLUID_IS_DARK)}; give another tool")
    upright = [_upright(scan) for scan in dark]
    order = upright[0][1]
    volumes = torch.from_numpy(np.stack([values for values, _ in upright]))
    found = brain_mask(volumes, spacing_mm(dark[0].affine)[list(order)].tolist())
    if found is None:
        raise ValueError("the morphological tool finds no skull to take off; leave the step out")
    return np.ascontiguousarray(found.numpy().transpose(np.argsort(order)))


def _upright(scan: Scan) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """Axes left-right, front-back, feet-head, in whichever direction; and the order they were in."""
    order = tuple(int(axis) for axis in np.argsort(nibabel.io_orientation(scan.affine)[:, 0]))
    return scan.values.transpose(order), order


def _by_hd_bet(scans: Mapping[str, Scan]) -> Mask:
    program = shutil.which(HD_BET)
    if program is None:
        raise ValueError(f"{HD_BET} is not installed; pip install hd-bet, or take the morphological tool")
    scan = scans[next(iter(scans))]
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "scan.nii.gz"), Path(folder, "brain.nii.gz")
        nibabel.save(nibabel.Nifti1Image(scan.values, scan.affine), source)
        words = [program, "-i", str(source), "-o", str(output), "--save_bet_mask", "--no_bet_image"]
        done = subprocess.run(words, capture_output=True, text=True)
        mask = Path(folder, "brain_bet.nii.gz")
        if done.returncode or not mask.is_file():
            raise ValueError(f"{HD_BET} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
        return np.asarray(nibabel.load(mask).dataobj) > 0


TOOLS: dict[str, Callable[[Mapping[str, Scan]], Mask]] = {"morphological": _by_morphology, HD_BET: _by_hd_bet}
