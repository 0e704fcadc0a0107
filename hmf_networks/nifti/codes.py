"""What can be wrong with a volume: a code, what it means, and what to do. `docs/reliability.md` prints this table."""

from pathlib import Path
from typing import NamedTuple

ERRORS = {
    "E_MISSING": "there is no such file, or the second file of a .hdr/.img pair is not there",
    "E_EMPTY": "the file holds no byte, or its gzip stream does not",
    "E_NOT_NIFTI": "neither NIfTI-1 nor NIfTI-2: another format, or another file under this name",
    "E_TRUNCATED": "the file ends before its header, its voxels or its gzip stream do",
    "E_CORRUPT": "the gzip stream is damaged: its blocks, its checksum or its length are wrong",
    "E_TOO_LARGE": "more voxels than `max_voxels`, or far more bytes than its header speaks of",
    "E_HEADER": "header fields that contradict each other or make no sense, e.g. voxels that begin inside the header",
    "E_EXT": "a header extension that is broken: it ends behind the voxels' begin, or has an impossible size",
    "E_DIM": "not three axes with at least one voxel each; two of them must be longer than one voxel",
    "E_4D": "several volumes in one file: name the one that is meant, or write it to its own file",
    "E_DTYPE": "voxels that are no plain numbers: colours, complex, single bits, or an unknown type",
    "E_AFFINE": "no usable geometry: the matrix in force is singular, not finite, or has voxels of no size",
    "E_SCALE": "slope or intercept of the stored numbers are not finite, or make values that no float32 can hold",
    "E_NO_SIGNAL": "every voxel has the same value, or none is finite",
}
WARNINGS = {
    "W_QS_MISMATCH": "qform and sform are both set and place the volume differently; the sform is taken",
    "W_NO_ORIENT": "neither qform nor sform is set: left and right are unknown, voxel sizes alone are used",
    "W_PIXDIM": "voxel sizes in the header are zero, negative, not finite or unlike those of the matrix in force",
    "W_SHEAR": "the axes of the volume are not at right angles",
    "W_UNITS": "lengths are in metres, micrometres or an unknown unit rather than millimetres",
    "W_NONFINITE": "some voxels are NaN or infinite; they are taken as 0",
    "W_RANGE": "a few voxels are so far beyond all others that they are surely no signal",
    "W_TRAILING": "bytes follow after the voxels or after the gzip stream; they are not used",
    "W_EXT": "a header extension of unknown kind or odd size that was skipped, or a file name that does not tell "
    "whether it is compressed",
}


class Warned(NamedTuple):
    """A volume is used all the same, but its user should know."""

    code: str
    problem: str


class VolumeError(ValueError):
    """A volume that cannot be used; the message begins with a code and names the file and the cure."""

    def __init__(self, code: str, path: str | Path, problem: str) -> None:
        super().__init__(f"{code} {path}: {problem}")
        self.code = code
        self.problem = problem
