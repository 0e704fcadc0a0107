"""What can be wrong with a volume: a code, and what it means. docs/reliability.md has the same table."""

from pathlib import Path
from typing import NamedTuple

ERRORS = {
    "E_MISSING": "no such file, or the second file of a .hdr/.img pair is not there",
    "E_EMPTY": "not one byte in the file, or in its gzip stream",
    "E_NOT_NIFTI": "neither NIfTI-1 nor NIfTI-2: another format, or another file under this name",
    "E_TRUNCATED": "the file ends before its header, its voxels or its gzip stream do",
    "E_CORRUPT": "the gzip stream is damaged: its blocks, its checksum or its length are wrong",
    "E_TOO_LARGE": "more voxels than max_voxels, or far more bytes than the header speaks of",
    "E_HEADER": "header fields that contradict each other or make no sense",
    "E_EXT": "a broken header extension: an impossible size, or it runs into the voxels",
    "E_DIM": "not three axes with at least one voxel each, two of them longer",
    "E_4D": "several volumes in one file: say which with --volume, or write it to its own file",
    "E_DTYPE": "voxels that are no plain numbers: colours, complex, bits, or an unknown type",
    "E_AFFINE": "no usable geometry: the matrix in force is singular or not finite, or voxels have no size",
    "E_SCALE": "slope or intercept are not finite, or make values that no float32 can hold",
    "E_NO_SIGNAL": "every voxel has the same value, or none is finite",
}
WARNINGS = {
    "W_QS_MISMATCH": "qform and sform are both set and place the volume differently; the sform counts",
    "W_NO_ORIENT": "neither qform nor sform is set: which side is left is a guess",
    "W_PIXDIM": "voxel sizes that are zero, negative, not finite, or not those of the matrix in force",
    "W_SHEAR": "the axes are not at right angles",
    "W_UNITS": "lengths in metres, micrometres or an undefined unit instead of millimetres",
    "W_NONFINITE": "some voxels are NaN or infinite; they are taken as 0",
    "W_RANGE": "a few voxels lie so far beyond all others that they are no signal",
    "W_TRAILING": "bytes follow the voxels or the gzip stream; they are not used",
    "W_EXT": "an extension that was skipped, or a name that does not tell whether the file is compressed",
}


class Warned(NamedTuple):
    """The volume is used, but whoever uses it should know."""

    code: str
    problem: str


class Complaint(Exception):  # noqa: N818
    """A code and a problem, raised where the path is not known; `VolumeError` is what users see."""

    def __init__(self, code: str, problem: str) -> None:
        super().__init__(code, problem)
        self.code, self.problem = code, problem


class VolumeError(ValueError):
    """A volume that cannot be used; the message begins with a code and names the file and the cure."""

    def __init__(self, code: str, path: str | Path, problem: str) -> None:
        super().__init__(f"{code} {path}: {problem}")
        self.code, self.path, self.problem = code, str(path), problem

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """As the workers of a DataLoader send it; by default pickle would call with the message alone."""
        return type(self), (self.code, self.path, self.problem)
