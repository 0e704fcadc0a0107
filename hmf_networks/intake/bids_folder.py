"""One prepared study as part of a BIDS dataset: scans, transforms, the scans as acquired, and what was done.

`sub-001[/ses-1]/anat/sub-001_T1w.nii.gz` with a JSON beside it; `..._from-FLAIR_to-T1w_mode-image_xfm.txt` as ITK
reads it; below `derivatives/own_grid/` the scans before registration, on their own grids; and a picture. Nothing in
them tells of a person.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hmf_networks.atomic import write_whole
from hmf_networks.data.prepared import OWN_GRID, way_name
from hmf_networks.hashing import file_hash
from hmf_networks.intake.sheet import draw_sheet
from hmf_networks.intake.steps import Ready
from hmf_networks.intake.studies import RawStudy
from hmf_networks.naming import BIDS_SUFFIXES, GENERATOR
from hmf_networks.nifti.write import write_volume
from hmf_networks.outputs.bids import VERSION
from hmf_networks.preparation.itk_transform import as_text
from hmf_networks.preparation.scan import Scan

SHEET = "preparation.png"
SIDECAR_TAGS = {  # of BIDS, in its units
    "repetition_time_ms": ("RepetitionTime", 1e-3),
    "echo_time_ms": ("EchoTime", 1e-3),
    "inversion_time_ms": ("InversionTime", 1e-3),
    "flip_angle_degrees": ("FlipAngle", 1.0),
    "field_tesla": ("MagneticFieldStrength", 1.0),
    "slice_thickness_mm": ("SliceThickness", 1.0),
}
DATASET = {
    "dataset_description.json": json.dumps(
        {"Name": "Prepared MRI studies", "BIDSVersion": VERSION, "DatasetType": "raw", "GeneratedBy": [GENERATOR]},
        indent=2,
    )
    + "\n",
    "README.md": "Scans of patients, prepared by hmf_networks: see the JSON beside each.\n\n"
    "derivatives/own_grid/ holds them as they were acquired, each on its own grid. Faces have not been removed.\n",
    ".bidsignore": "manifest.json\nerrors.json\n*.png\n*_xfm.txt\n",
}


def stem_of(pseudonym: str, session: str) -> tuple[Path, str]:
    """Folder of the scans below the dataset, and how names of files begin."""
    folders = [f"sub-{pseudonym}"] + ([f"ses-{session}"] if session else [])
    return Path(*folders) / "anat", "_".join(folders)


def scan_name(stem: str, contrast: str) -> str:
    agent = "_ce-gadolinium" if contrast == "t1c" else ""
    return f"{stem}{agent}_{BIDS_SUFFIXES[contrast]}"


def describe(folder: Path) -> None:
    for name, content in DATASET.items():
        if not (folder / name).exists():
            write_whole(folder / name, content)


def write_study(
    folder: Path, pseudonym: str, session: str, study: RawStudy, raw: Mapping[str, Scan], ready: Ready
) -> dict[str, str]:
    """Write all of a study, or nothing: relative path -> SHA-256 of each scan that is ready.

    What is there of the study is replaced.
    """
    anat, stem = stem_of(pseudonym, session)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".preparing-") as temporary:
        new, own_grid = Path(temporary, "anat"), Path(temporary, "own_grid")
        new.mkdir()
        own_grid.mkdir()
        for contrast, scan in ready.scans.items():
            name = scan_name(stem, contrast)
            write_volume(scan.values, scan.affine, new / f"{name}.nii.gz")
            write_whole(new / f"{name}.json", _sidecar(contrast, study, ready, file_hash(new / f"{name}.nii.gz")))
            own = ready.own[contrast]
            write_volume(own.values, own.affine, own_grid / f"{name}.nii.gz", like=study.scans[contrast].nifti)
        for contrast, notes in ready.notes.get("registration", {}).items():
            write_whole(new / f"{stem}_{way_name(contrast, ready.reference)}", as_text(np.array(notes["matrix"])))
        write_whole(new / f"{stem}_{SHEET}", draw_sheet(raw, ready.scans, ready.fields, ready.reference))
        hashes = {str(anat / path.name): file_hash(path) for path in sorted(new.glob("*.nii.gz"))}
        _replace(own_grid, folder / OWN_GRID / anat)
        _replace(new, folder / anat)
    return hashes


def _sidecar(contrast: str, study: RawStudy, ready: Ready, content_hash: str) -> str:
    tags = study.scans[contrast].tags
    acquired = {name: tags[tag] * unit for tag, (name, unit) in SIDECAR_TAGS.items() if tag in tags}
    steps = {step: notes.get(contrast, notes.get("all")) for step, notes in ready.notes.items()}
    content: dict[str, Any] = {
        **acquired,
        "SkullStripped": "brain" in ready.notes,
        "Reference": ready.reference,
        "Preparation": {step: notes for step, notes in steps.items() if notes is not None},
        "Sha256": content_hash,
        "GeneratedBy": GENERATOR,
    }
    return json.dumps(content, indent=2) + "\n"


def _replace(new: Path, path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    new.replace(path)
