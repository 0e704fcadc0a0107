"""BIDS names: `sub-01[/ses-1]/anat/sub-01[_ses-1][_ce-gadolinium][_run-1]_T1w.nii.gz`.

Derivatives are not read, except lesion masks: `derivatives/*/sub-01[/ses-1]/anat/*_label-lesion_mask.nii.gz`.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from hmf_networks.data.records import Sighting, gather, is_listed, nifti_stem
from hmf_networks.naming import Record

logger = logging.getLogger(__name__)

EXAMPLE = "sub-01/anat/sub-01_T1w.nii.gz"
SUBJECT_FOLDER = re.compile("sub-.+")
# Folders of a dataset that other layouts have no say in: the scans, and what BIDS keeps beside them.
FOLDERS = re.compile("sub-.+|derivatives|sourcedata|rawdata|code|stimuli|phenotype")
SUFFIXES = {"t1w": "t1", "t2w": "t2", "flair": "flair", "pdw": "pd"}


def find(root: Path) -> list[Record]:
    """All subjects of the dataset, whatever contrasts they have."""
    return gather(_one_of_each([*_scans(root), *_lesion_masks(root)]), "bids")


def _scans(root: Path) -> Iterator[Sighting]:
    for patient, session, path in _anat_files(root):
        stem, suffix = _stem_and_suffix(path)
        if suffix not in SUFFIXES or "_desc-synth" in stem:  # our own output is no source
            continue
        subject = f"sub-{patient}" + (f"_ses-{session}" if session else "")
        if not stem.startswith(f"{subject}_"):
            logger.warning("%s: left out, its name does not begin with its folder's %s", path, subject)
            continue
        contrast = SUFFIXES[suffix]
        yield Sighting(patient, session, "t1c" if contrast == "t1" and "_ce-" in stem else contrast, path)


def _lesion_masks(root: Path) -> Iterator[Sighting]:
    for pipeline in sorted(root.glob("derivatives/*")):
        for patient, session, path in _anat_files(pipeline):
            stem, suffix = _stem_and_suffix(path)
            if suffix == "mask" and "_label-lesion_" in stem:
                yield Sighting(patient, session, "label", path)


def _anat_files(root: Path) -> Iterator[tuple[str, str, Path]]:
    for path in sorted([*root.glob("sub-*/anat/*"), *root.glob("sub-*/ses-*/anat/*")]):
        patient, *session = path.relative_to(root).parts[:-2]
        if is_listed(path):
            yield patient.removeprefix("sub-"), "".join(session).removeprefix("ses-"), path


def _stem_and_suffix(path: Path) -> tuple[str, str]:
    stem = nifti_stem(path) or ""
    return stem, stem.rpartition("_")[2].lower()


def _one_of_each(sightings: list[Sighting]) -> Iterator[Sighting]:
    """Of several runs or acquisitions only the first: plainest name, then lowest numbers."""
    choices: dict[tuple[str, str, str], list[Sighting]] = defaultdict(list)
    for sighting in sightings:
        choices[sighting[:3]].append(sighting)
    for (patient, session, contrast), candidates in choices.items():
        ordered = sorted(candidates, key=lambda sighting: _plainest_first(sighting.path))
        first = nifti_stem(ordered[0].path)
        if nifti_stem(ordered[-1].path) != first:
            subject = f"sub-{patient}" + (f"_ses-{session}" if session else "")
            others = ", ".join(s.path.name for s in ordered if nifti_stem(s.path) != first)
            logger.warning("%s: several files for %s; %s taken, not %s", subject, contrast, first, others)
        # .nii and .nii.gz of one name both go on, and `gather` refuses them; of masks the first will do
        same_name = [sighting for sighting in ordered if nifti_stem(sighting.path) == first]
        yield from same_name[:1] if contrast == "label" else same_name


def _plainest_first(path: Path) -> tuple[int, list[tuple[int, str]], str]:
    words = re.findall(r"\d+|\D+", path.name)
    natural = [(int(word), "") if word.isdigit() else (-1, word) for word in words]  # run-2 before run-10
    return path.name.count("_"), natural, str(path)
