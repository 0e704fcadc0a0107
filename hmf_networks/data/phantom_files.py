"""Where a simulated subject's files go in each layout, and how they are written: always the same bytes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from hmf_networks.naming import BIDS_SUFFIXES

if TYPE_CHECKING:
    from hmf_networks.data.phantom import Subject

BRATS_ENDINGS = {"t1": "t1n", "t1c": "t1c", "t2": "t2w", "flair": "t2f", "lesions": "seg"}
IXI_ENDINGS = {"t1": "T1", "t2": "T2", "pd": "PD"}
BIDS_LABELS = "derivatives/labels"


def brats_paths(number: int) -> dict[str, str]:
    name = f"BraTS-SIM-{number:05d}-000"
    return {key: f"{name}/{name}-{ending}.nii.gz" for key, ending in BRATS_ENDINGS.items()}


def ixi_paths(number: int) -> dict[str, str]:
    return {key: f"IXI{number:03d}-SIM-{number:04d}-{end}.nii.gz" for key, end in IXI_ENDINGS.items()}


def bids_paths(number: int) -> dict[str, str]:
    name = f"sub-sim{number:03d}"
    scans = {
        key: f"{name}/anat/{name}{'_ce-gadolinium' if key == 't1c' else ''}_{suffix}.nii.gz"
        for key, suffix in BIDS_SUFFIXES.items()
    }
    stem = f"{BIDS_LABELS}/{name}/anat/{name}"
    return scans | {"tissues": f"{stem}_dseg.nii.gz", "lesions": f"{stem}_label-lesion_mask.nii.gz"}


LAYOUTS = {"brats": brats_paths, "ixi": ixi_paths, "bids": bids_paths}


def offered_contrasts(layout: str, contrasts: Sequence[str]) -> list[str]:
    """Those of the contrasts that the layout has a name for; ValueError when none is left."""
    known = LAYOUTS[layout](1)
    offered = [name for name in contrasts if name in known]
    if not offered:
        raise ValueError(f"layout {layout!r} holds none of {', '.join(contrasts)}; ask for one of {', '.join(known)}")
    return offered


def refuse_existing(output_dir: Path, layout: str, numbers: Iterable[int]) -> None:
    """ValueError naming the first place where a subject of ours would meet files that are there already."""
    for number in numbers:
        for path in (output_dir / name for name in LAYOUTS[layout](number).values()):
            taken = path if layout == "ixi" else path.parent
            if taken.is_file() or (taken.is_dir() and any(taken.iterdir())):
                raise ValueError(f"{taken} is there already; name another output folder, or empty this one")


def write_subject(
    subject: Subject, output_dir: Path, *, layout: str, number: int, spacing_mm: float | Sequence[float]
) -> dict[str, str]:
    """Write what the layout has a name for; returns {"subject": name, contrast or label: path}."""
    volumes = subject.images | {"tissues": subject.tissue_labels, "lesions": subject.lesion_labels}
    if layout == "bids":
        volumes["lesions"] = (subject.lesion_labels > 0).astype(np.int16)
        _describe_bids(output_dir)
    paths = {key: output_dir / name for key, name in LAYOUTS[layout](number).items() if key in volumes}
    for key, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_nifti(path, volumes[key], spacing_mm=spacing_mm)
    first = next(iter(LAYOUTS[layout](number).values()))
    name = first.rpartition("-")[0] if layout == "ixi" else first.partition("/")[0]
    return {"subject": name} | {key: str(path) for key, path in paths.items()}


def write_nifti(path: Path, volume: np.ndarray, *, spacing_mm: float | Sequence[float]) -> None:
    """int16 NIfTI-1, axes left, back, up, the centre of the field of view at (0, 0, 0) mm."""
    import nibabel

    spacing = np.broadcast_to(np.asarray(spacing_mm, np.float64), (3,))
    centre = (np.array(volume.shape) - 1) / 2 * spacing
    affine = np.diag((-spacing[0], -spacing[1], spacing[2], 1.0))
    affine[:3, 3] = centre * (1, 1, -1)
    image = nibabel.Nifti1Image(volume.astype(np.int16), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header["descrip"] = b"simulated by hmf_networks, no real person"
    # no name and no time inside: the same seed gives the same bytes
    with path.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed:
        packed.write(image.to_bytes())


def _describe_bids(output_dir: Path) -> None:
    common = {"Name": "Subjects simulated by hmf_networks", "BIDSVersion": "1.8.0"}
    made_by = {"DatasetType": "derivative", "GeneratedBy": [{"Name": "hmf simulate"}]}
    for folder, text in ((output_dir, common), (output_dir / BIDS_LABELS, common | made_by)):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "dataset_description.json"
        if not path.exists():
            path.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")
