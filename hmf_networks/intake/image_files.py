"""Scans as image files: NIfTI, NRRD, MetaImage, MGZ; which contrast, and of whom, is told by their names."""

import warnings
from collections import defaultdict
from pathlib import Path

import nibabel
import numpy as np
from hmf_networks.data.folder import find_subjects
from hmf_networks.data.records import files_below, nifti_stem
from hmf_networks.naming import CONTRASTS
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.read import read_volume
from hmf_networks.preparation.contrast_words import agent_by_name, contrasts_by_name
from hmf_networks.preparation.scan import Affine, Scan, from_itk

ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
FREESURFER_SUFFIXES = (".mgz", ".mgh")
RIGHT_ANGLE = 1e-3  # cosine between axes that still passes for one

Files = dict[str, Path]


def is_image(path: Path) -> bool:
    return nifti_stem(path) is not None or path.suffix.lower() in (*ITK_SUFFIXES, *FREESURFER_SUFFIXES)


def find_scans(root: Path) -> tuple[dict[tuple[str, str], Files], dict[tuple[str, str], list[str]]]:
    """By patient and session a file for each contrast; and what of each is left aside, in words.

    Layouts that training reads are recognised first. Else a folder is a patient, called as it is below `root`,
    and its files are called by their contrast.

    Raises:
        VolumeError: E_AMBIGUOUS, two files of a patient look like one contrast.
    """
    images = [path for path in files_below(root) if is_image(path)]
    try:
        records = find_subjects(root, [], strict=True)
    except (ValueError, OSError):
        records = []
    if records:
        known = {
            (record["patient"], record["session"]): {name: Path(record[name]) for name in CONTRASTS if name in record}
            for record in records
        }
        taken = {path for files in known.values() for path in files.values()}
        if taken.issuperset(path for path in images if _contrast(path) is not None):
            return known, {}
    return _by_words(root, images)


def _by_words(root: Path, images: list[Path]) -> tuple[dict[tuple[str, str], Files], dict[tuple[str, str], list[str]]]:
    found: dict[tuple[str, str], Files] = defaultdict(dict)
    aside: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in images:
        patient = "_".join(path.parent.relative_to(root).parts) or root.name
        contrast = _contrast(path)
        if contrast is None:
            aside[patient, ""].append("an image whose name tells no contrast")
        elif contrast in found[patient, ""]:
            raise VolumeError("E_AMBIGUOUS", path, f"a second file that looks like a {contrast}")
        else:
            found[patient, ""][contrast] = path
    return {key: files for key, files in found.items() if files}, aside


def _contrast(path: Path) -> str | None:
    """By its own name; a segmentation or a synthetic image is none."""
    stem = nifti_stem(path) or path.stem
    named = contrasts_by_name(stem)
    if len(named) != 1 or any(word in stem.lower() for word in ("mask", "seg", "synth", "label")):
        return None
    contrast = next(iter(named))
    return "t1c" if contrast == "t1" and agent_by_name(stem) else contrast


def read_image(path: Path) -> Scan:
    """Any of the formats.

    Raises:
        VolumeError: it cannot be used.
    """
    if nifti_stem(path) is not None:
        scan = Scan(*read_volume(path))
    elif path.suffix.lower() in FREESURFER_SUFFIXES:
        scan = _read_freesurfer(path)
    else:
        scan = _read_by_itk(path)
    return checked(scan, path)


def checked(scan: Scan, path: str | Path) -> Scan:
    """The scan, if registration can work with it."""
    if scan.values.ndim != 3:
        raise VolumeError("E_DIM", path, f"{scan.values.ndim} axes")
    if not np.isfinite(scan.values).all():
        scan = Scan(np.nan_to_num(scan.values, nan=0, posinf=0, neginf=0), scan.affine)
    if scan.values.min() == scan.values.max():
        raise VolumeError("E_NO_SIGNAL", path, f"every voxel is {scan.values.flat[0]:g}")
    if not _is_usable(scan.affine):
        problem = "its axes are not at right angles, or voxels have no size"
        raise VolumeError("E_AFFINE", path, problem, "resample it upright first")
    return scan


def _is_usable(affine: Affine) -> bool:
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not sizes.min() > 0:
        return False
    axes = affine[:3, :3] / sizes
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() < RIGHT_ANGLE)


def _read_freesurfer(path: Path) -> Scan:
    try:
        image = nibabel.load(path)
        values = np.squeeze(np.asarray(image.dataobj, dtype=np.float32))
    except Exception as error:  # nibabel raises anything on damaged files
        raise VolumeError("E_IMAGE", path, _line(error)) from error
    return Scan(values, np.asarray(image.affine, dtype=np.float64))


def _read_by_itk(path: Path) -> Scan:
    import itk

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = itk.imread(str(path), itk.F)
    except Exception as error:  # so does ITK
        raise VolumeError("E_IMAGE", path, _line(error)) from error
    if image.GetImageDimension() != 3:
        raise VolumeError("E_DIM", path, f"{image.GetImageDimension()} axes")
    return from_itk(image)


def _line(error: Exception) -> str:
    """What it says at last, without the place in the source of a library."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
