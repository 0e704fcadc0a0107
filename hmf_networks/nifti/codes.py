"""What can be wrong with a volume: a code, what it means, what to do. docs/reliability.md has this table."""

from pathlib import Path
from typing import NamedTuple


class Fault(NamedTuple):
    """One kind of fault, for all files that have it."""

    meaning: str
    cure: str


AGAIN = "fetch the file again from where it came"
EXPORT = "export the whole series again from the archive"
ERRORS = {
    "E_MISSING": Fault("no such file, or none of the contrast, or half of a .hdr/.img pair", "add the file"),
    "E_EMPTY": Fault("not one byte in the file, or in its gzip stream", AGAIN),
    "E_NOT_NIFTI": Fault("neither NIfTI-1 nor NIfTI-2: another format under this name", "convert it to NIfTI"),
    "E_TRUNCATED": Fault("the file ends before its header, its voxels or its gzip stream do", AGAIN),
    "E_CORRUPT": Fault("the gzip stream is damaged: its blocks, its checksum or its length", AGAIN),
    "E_TOO_LARGE": Fault(
        "more voxels than max_voxels, or far more bytes than the header speaks of", "give a smaller volume"
    ),
    "E_HEADER": Fault("header fields that contradict each other or make no sense", "convert the scan anew"),
    "E_EXT": Fault("a header extension of impossible size, or one that runs into the voxels", AGAIN),
    "E_DIM": Fault("not three axes with at least a voxel each", "give one 3-D volume"),
    "E_4D": Fault("several volumes in one file", "say which with --volume, counted from 0"),
    "E_DTYPE": Fault(
        "voxels that are no plain numbers: colours, complex, bits, or an unknown type", "store plain numbers"
    ),
    "E_AFFINE": Fault(
        "no usable geometry: the matrix in force is singular or not finite, or voxels have no size",
        "convert the scan anew, or set its sform",
    ),
    "E_SCALE": Fault(
        "slope or intercept are not finite, or make values that no float32 can hold", "convert the scan anew"
    ),
    "E_NO_SIGNAL": Fault("every voxel has the same value, or none is finite", "give a scan that holds an image"),
    "E_AMBIGUOUS": Fault("a subject has two files for one contrast", "keep one of them"),
    "E_GRID": Fault(
        "contrasts of one subject lie on different grids", "allow --regrid, or resample onto the first source"
    ),
    "E_IMAGE": Fault("an image file (NRRD, MetaImage, MGZ) that cannot be read", AGAIN),
    "E_REGISTRATION": Fault(
        "a contrast that no place was found for on the head of the reference",
        "look whether both are of one head; leave it out, or give another --reference",
    ),
    "E_BRAIN": Fault("no brain was found", "leave the skull on, or give another --brain tool"),
    "E_DICOM_EMPTY": Fault("no DICOM file below the folder, or in the .zip", "give the folder of a study"),
    "E_DICOM_ZIP": Fault(
        "a .zip that is damaged, encrypted or too large, or holds names that lead out of its folder", AGAIN
    ),
    "E_DICOM_MODALITY": Fault("no images of magnetic resonance: CT, reports, pictures", "give the MR series"),
    "E_DICOM_TAGS": Fault("DICOM tags that say where an image lies are missing or make no sense", EXPORT),
    "E_DICOM_SINGLE": Fault("a DICOM series of one slice", "give a series that is a volume"),
    "E_DICOM_PARALLEL": Fault("images of one DICOM stack are turned against each other", EXPORT),
    "E_DICOM_TWICE": Fault(
        "different images at one place: several volumes in one DICOM series", "export each volume as its own series"
    ),
    "E_DICOM_GAP": Fault("slices are missing, or lie at uneven distances", EXPORT),
    "E_DICOM_TILT": Fault(
        "DICOM slices are shifted along their plane, as with a tilted gantry", "resample the series upright first"
    ),
    "E_DICOM_PIXELS": Fault("pixels of a DICOM image that cannot be decoded", EXPORT),
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
    "W_DICOM_TWICE": "images that a DICOM series has twice; one of each is used",
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
    """A volume that cannot be used: "<code> <path>: <problem>; <cure>", by default the cure of its code."""

    def __init__(self, code: str, path: str | Path, problem: str, cure: str | None = None) -> None:
        self.code, self.path, self.problem = code, str(path), problem
        self.cure = cure or ERRORS[code].cure
        super().__init__(code, path, problem, cure)  # what pickle calls with, when a worker sends it

    def __str__(self) -> str:
        return f"{self.code} {self.path}: {self.problem}; {self.cure}"
