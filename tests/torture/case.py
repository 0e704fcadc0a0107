"""What one file of the torture set is: how it is made, which verdict it must get, what must be read from it.

A case passes when

* reject: the file is refused, and the one code of the reader is among `codes` (more than one where two
  readings of the file are equally fair, such as a header that claims 32767^3 voxels which are not there);
* warn: the file is used, and the reader's set of codes equals `codes`;
* accept: the file is used, and the reader has no code (`codes` is empty).

What must be read from a file that is used: `case.expected(volume)`, values and affine as stored, without
reorientation. Where an expected value is not finite the reader may put what it likes. An affine of None is
not prescribed. Values agree to 1e-5 of the largest, the affine to 1e-4 mm.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

KINDS = ("header", "file", "type", "shape", "data", "container", "name", "bomb", "privacy")
PATIENT = b"Doe^Jane"  # planted in files of kind "privacy": no report, message or written file may hold it

ERRORS = frozenset(
    f"E_{word}"
    for word in (
        *("MISSING", "EMPTY", "NOT_NIFTI", "TRUNCATED", "CORRUPT", "TOO_LARGE", "HEADER"),
        *("EXT", "DIM", "4D", "DTYPE", "AFFINE", "SCALE", "NO_SIGNAL"),
    )
)
WARNINGS = frozenset(
    f"W_{word}"
    for word in (*("QS_MISMATCH", "NO_ORIENT", "PIXDIM", "SHEAR", "UNITS"), *("NONFINITE", "RANGE", "TRAILING", "EXT"))
)


@dataclass(frozen=True)
class Volume:
    """A head on background 0, whole numbers from 0 to 1000 so that integer types hold it exactly."""

    values: np.ndarray  # float32, X Y Z
    affine: np.ndarray  # float64, 4 x 4, mm, voxel index to RAS+

    @property
    def spacing_mm(self) -> np.ndarray:
        return np.linalg.norm(self.affine[:3, :3], axis=0)


Files = dict[str, bytes | None]
Expected = tuple[np.ndarray, np.ndarray | None]


class Case(NamedTuple):
    """One entry: see the head of this file for what `verdict` and `codes` ask of a reader.

    `files` maps names to contents; the first is the one that is opened. A name may hold folders, a name that
    ends in "/" is an empty folder, and a content of None stands for a file that is not there.
    """

    name: str
    kind: str
    files: Callable[[Volume], Files]
    verdict: str
    codes: frozenset[str]
    values: Callable[[Volume], Expected] | None = None

    def expected(self, volume: Volume) -> Expected:
        return (volume.values, volume.affine) if self.values is None else self.values(volume)


def passes(case: Case, *, used: bool, codes: Iterable[str]) -> bool:
    """Whether a reader that used the file (or refused it) with these codes did what the case asks."""
    codes = set(codes)
    if case.verdict == "reject":
        return not used and len(codes) == 1 and codes <= case.codes
    return used and codes == case.codes


def accept(
    name: str, kind: str, files: Callable[[Volume], Files], values: Callable[[Volume], Expected] | None = None
) -> Case:
    return Case(name, kind, files, "accept", frozenset(), values)


def warn(
    name: str,
    kind: str,
    codes: str,
    files: Callable[[Volume], Files],
    values: Callable[[Volume], Expected] | None = None,
) -> Case:
    return Case(name, kind, files, "warn", frozenset(codes.split()), values)


def reject(name: str, kind: str, codes: str, files: Callable[[Volume], Files]) -> Case:
    return Case(name, kind, files, "reject", frozenset(codes.split()))


def simulated_head(seed: int = 0) -> Volume:
    """An ellipsoid of 20 x 24 x 18 voxels with a bright shell, smooth inside and exactly 0 outside."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (20, 24, 18)), indexing="ij")
    radius = np.sqrt((x / 0.85) ** 2 + (y / 0.9) ** 2 + (z / 0.8) ** 2)
    waves = np.zeros_like(x)
    for _ in range(6):
        frequency, phase = rng.uniform(-4, 4, size=3), rng.uniform(0, 2 * np.pi)
        waves += np.cos(frequency[0] * x + frequency[1] * y + frequency[2] * z + phase)
    head = 450 + 60 * waves + 150 * np.exp(-(((radius - 0.9) / 0.08) ** 2))
    values = np.where(radius < 1, np.clip(np.round(head), 1, 1000), 0).astype(np.float32)
    affine = np.diag([1.0, 1.0, 1.25, 1.0])
    affine[:3, 3] = [-9.5, -11.5, -10.0]
    return Volume(values, affine)


def write_files(case: Case, volume: Volume, folder: Path) -> Path:
    """Write the files of a case under `folder`; the path that is to be opened."""
    files = case.files(volume)
    for name, content in files.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)
    return folder / next(iter(files))
