"""Of the series of a study one for each contrast: as the user names them, else the plainest; and why no other."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from hmf_networks.naming import check_contrasts
from hmf_networks.preparation.dicom_headers import words_in
from hmf_networks.preparation.dicom_series import Series, by_study
from hmf_networks.preparation.scan import spacing_mm

BY_USER = "named by the user"
BETTER = ("readable", "original", "without fat suppression", "finer", "of smaller voxels", "of more slices", "earlier")
FAT_SUPPRESSED = re.compile(r"(?<![a-z])(fs|fat ?sat|spir|spair|fatsat)(?![a-z])", re.IGNORECASE)


class LeftAside(NamedTuple):
    """Without names of people: for manifests."""

    label: str
    reason: str


class Choice(NamedTuple):
    """By contrast the series taken, readable or not, and all others with the reason why not."""

    taken: dict[str, Series]
    aside: list[LeftAside]


def parse_assignments(texts: Sequence[str]) -> dict[str, str]:
    """["T1=Ax T1 SE", "pd=4.1"] by contrast.

    Raises:
        ValueError: no "=", an unknown contrast, or one that is named twice.
    """
    assignments: dict[str, str] = {}
    for text in texts:
        contrast, equals, name = (part.strip() for part in text.partition("="))
        if not (equals and name):
            raise ValueError(f"--series {text!r}; write T1=<description, number or UID of the series>")
        check_contrasts([contrast.lower()])
        if contrast.lower() in assignments:
            raise ValueError(f"--series names {contrast.lower()} twice; give it one series")
        assignments[contrast.lower()] = name
    return assignments


def named(series: Sequence[Series], assignments: Mapping[str, str]) -> list[Series]:
    """The same series, those that the user names with the contrast given, also if they had been left aside.

    A name is a label ("4.2"), a number, a UID or a whole description, in any case; it may fit one series in each study.

    Raises:
        ValueError: it fits none, or several of a study; or one series is to be two contrasts.
    """
    check_contrasts(list(assignments))
    contrasts: dict[int, str] = {}
    for contrast, name in assignments.items():
        for one in _fitting(series, contrast, name):
            if id(one) in contrasts:
                known = contrasts[id(one)]
                raise ValueError(f"--series gives series {one.label} to {known} and {contrast}; give each its own")
            contrasts[id(one)] = contrast
    given = {(one.patient_key, one.study_key, contrasts[id(one)]) for one in series if id(one) in contrasts}
    return [_renamed(one, contrasts.get(id(one)), given) for one in series]


def choose(series: Sequence[Series]) -> Choice:
    """One series for each contrast of one study.

    Readable goes before faulty, original before derived, without fat suppression before with; then the voxels count
    (their longest edge, then their size), more slices, and the lower number.

    Raises:
        ValueError: series of several studies.
    """
    if len(by_study(series)) > 1:
        raise ValueError("series of several studies; choose in each of by_study(series)")
    candidates: dict[str, list[Series]] = defaultdict(list)
    aside = []
    for one in series:
        if one.contrast is not None and not one.aside:
            candidates[one.contrast].append(one)
        else:
            aside.append(LeftAside(one.label, one.aside or one.guess_reason))
    taken = {contrast: min(group, key=_plainest_first) for contrast, group in candidates.items()}
    for contrast, group in candidates.items():
        others = [one for one in group if one is not taken[contrast]]
        aside += [LeftAside(one.label, _why_not(one, contrast, taken[contrast])) for one in others]
    return Choice(taken, aside)


def _fitting(series: Sequence[Series], contrast: str, name: str) -> list[Series]:
    fitting = []
    for study in by_study(series).values():
        here = [one for one in study if _fits(one, name)]
        if len(here) > 1:
            labels = ", ".join(one.label for one in here)
            raise ValueError(f"--series {contrast}={name!r} fits series {labels}; name one by its number or UID")
        fitting += here
    if not fitting:
        known = ", ".join(dict.fromkeys(one.label for one in series if one.images))
        raise ValueError(f"--series {contrast}={name!r} fits no series; there are {known}")
    return fitting


def _fits(one: Series, name: str) -> bool:
    number = one.label.partition(".")[0]
    names = (one.label, number, one.identity.get("SeriesInstanceUID", ""), one.description)
    return name.strip().casefold() in {known.strip().casefold() for known in names if known.strip()}


def _renamed(one: Series, contrast: str | None, given: set[tuple[str, str, str]]) -> Series:
    if contrast is not None:
        return replace(one, contrast=contrast, guess_reason=BY_USER, aside="")
    if one.contrast is not None and (one.patient_key, one.study_key, one.contrast) in given:
        return replace(one, contrast=None, guess_reason=f"looks like a {one.contrast}; the user named another")
    return one


def _plainest_first(one: Series) -> tuple[bool, bool, bool, float, float, int, float]:
    first = one.images[0]
    edges = spacing_mm(one.affine) if one.affine is not None else None
    return (
        one.fault is not None,
        "DERIVED" in words_in(first.values, "ImageType")[:1],
        "FS" in words_in(first.values, "ScanOptions") or FAT_SUPPRESSED.search(one.description) is not None,
        float("inf") if edges is None else round(float(edges.max()), 1),
        float("inf") if edges is None else round(float(edges.prod()), 3),
        -len(one.images),
        float(one.label),
    )


def _why_not(one: Series, contrast: str, taken: Series) -> str:
    if one.fault is not None:
        return f"a {contrast} that cannot be read ({one.fault.code}: {one.fault.problem})"
    words = (
        "readable",
        "original",
        "without fat suppression",
        "finer",
        "of smaller voxels",
        "of more slices",
        "earlier",
    )
    pairs = zip(words, _plainest_first(taken), _plainest_first(one), strict=True)
    better = next((word for word, here, there in pairs if here != there), "the first of its kind")
    return f"another {contrast}: series {taken.label} is {better}"
