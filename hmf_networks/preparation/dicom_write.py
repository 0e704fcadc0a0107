"""A synthetic contrast as a derived DICOM series, beside the series that it was made from (extra `prepare`).

Classic MR images, one file a slice, explicit VR little endian, whatever the sources are. Intensities 0..1000 are
stored as they are, rounded to integers. Up to 65535 there is room, below 0 is none.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from hmf_networks.atomic import write_whole
from hmf_networks.naming import check_contrasts, printable
from hmf_networks.preparation.dicom_write_header import (
    HIGHEST,
    MR_IMAGE_STORAGE,
    dataset,
    how_it_is_stored,
    references,
    what_it_is,
    when,
)
from hmf_networks.preparation.dicom_write_identity import copied_identity, pseudonymous_identity
from hmf_networks.preparation.dicom_write_planes import check_grid, corners, cut_like, of_all_slices, of_one_slice
from hmf_networks.preparation.dicom_write_source import Instance, SourceSeries, coplanar, read_source
from hmf_networks.preparation.scan import Scan
from hmf_networks.preparation.whole_folder import whole_folder
from numpy.typing import NDArray

Files = Sequence[str | Path]
SAME_PLANE_MM = 0.1  # a source slice that is nowhere farther from this slice lies in its plane
WHITE_QUANTILE = 0.995  # of what is not black; brighter is shown white


def write_series(
    scan: Scan,
    folder: str | Path,
    *,
    template_files: Files,
    contrast: str,
    sources: Mapping[str, Files],
    weights_sha256: str,
    description: str | None = None,
    anonymous: bool = False,
    pseudonym: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write a volume as the files `CONTRAST_0001.dcm`, ... of a new folder: all of them, or nothing.

    Slices are cut like those of the template, whatever the order and direction of the volume's axes, and numbered
    along their normal. A slice refers to the source instances in its plane; of a series that has none there, to
    the series. Of the sources only what `dicom_write_source.COPIED` names is copied.

    Args:
        scan: intensities, usually 0 to 1000.
        folder: not there yet; or `overwrite` is given, and it holds an older series and nothing else.
        template_files: the series that gives patient, study, frame of reference and the direction of slices; it
            counts as a source.
        contrast: what the volume shows, one of `naming.CONTRASTS`.
        sources: files of each series that it was made from, by contrast.
        weights_sha256: of the network's weights, by `hashing.file_hash`.
        description: of the series; if not given, "synthetic T2, not for diagnosis" or the like.
        anonymous: keep nothing of the patient, no date, no UID: see `dicom_write_identity.pseudonymous_identity`.
        pseudonym: name and number of the patient instead; implies `anonymous`.
        overwrite: replace an older series.

    Raises:
        ValueError: sheared axes, values that are not finite or cannot be stored; sources that are no MR images, lack
            identity or are of several patients; a folder that is in use.
    """
    check_contrasts([contrast, *sources])
    if not sources:
        raise ValueError("sources is empty; name the series that the volume was made from, by contrast")
    check_grid(scan)
    series = _read_all(template_files, sources)
    planes = cut_like(scan, series[0].planes[0])
    stored = _stored(planes.values)
    near = [_near(series, corners(planes, index)) for index in range(stored.shape[2])]
    is_hidden = anonymous or pseudonym is not None
    shared = (
        (pseudonymous_identity(series[0], pseudonym) if is_hidden else copied_identity(series[0]))
        | what_it_is(contrast, sources, weights_sha256=weights_sha256, description=description)
        | how_it_is_stored(series, peak=int(stored.max()), white=_white(stored))
        | of_all_slices(planes, thickness_mm=_thickness_mm(series[0], [instances[0] for instances in near]))
        | {"SeriesInstanceUID": _new_uid()}
        | ({} if is_hidden else when(datetime.now()))
    )
    names = [f"{contrast}_{index + 1:04d}.dcm" for index in range(len(near))]
    with whole_folder(folder, suffix=".dcm", overwrite=overwrite) as part:
        for index, name in enumerate(names):
            told = {} if is_hidden else references(series, near[index])
            pixels = np.ascontiguousarray(stored[:, :, index].T, dtype="<u2")
            write_whole(part / name, _encoded(shared | of_one_slice(planes, index) | told, pixels))
    return [Path(folder) / name for name in names]


def _read_all(template_files: Files, sources: Mapping[str, Files]) -> list[SourceSeries]:
    """Each series once, the template first."""
    found: dict[str, SourceSeries] = {}
    for files in dict.fromkeys(tuple(map(str, files)) for files in (template_files, *sources.values())):
        series = read_source(files)
        template = next(iter(found.values()), series)
        if series.copied.get("PatientID") != template.copied.get("PatientID"):
            raise ValueError(
                f"{printable(files[0])} is of another patient than the template; give series of one patient"
            )
        if series.uid not in found or len(series.instances) > len(found[series.uid].instances):
            found[series.uid] = series
    if not next(iter(found.values())).planes:
        raise ValueError(f"{printable(str(template_files[0]))} has no position or orientation; give another template")
    return list(found.values())


def _stored(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    if not np.isfinite(values).all():
        raise ValueError("the volume holds values that are not finite; replace them by numbers")
    rounded = np.rint(values)
    if rounded.min() < 0 or rounded.max() > HIGHEST:
        reach = f"from {values.min():g} to {values.max():g}"
        raise ValueError(f"intensities reach {reach}; scale them to 0..1000 ({HIGHEST} is the limit)")
    return rounded.astype(np.uint16)


def _white(stored: NDArray[np.uint16]) -> int:
    seen = stored[stored > 0]
    return int(np.quantile(seen, WHITE_QUANTILE)) if seen.size else 1


def _near(series: Sequence[SourceSeries], plane: NDArray[np.float64]) -> list[list[Instance]]:
    """Of each series the instances in that plane; none of one whose positions are in another frame of reference."""
    here = series[0].copied["FrameOfReferenceUID"]
    return [
        coplanar(source, plane, within_mm=SAME_PLANE_MM) if source.copied["FrameOfReferenceUID"] == here else []
        for source in series
    ]


def _thickness_mm(template: SourceSeries, near: Sequence[Sequence[Instance]]) -> float | None:
    """That of the template's slices, if these are they: between slices there may be gaps."""
    thicknesses = {plane.thickness_mm for plane in template.planes}
    return thicknesses.pop() if all(near) and len(thicknesses) == 1 else None


def _new_uid() -> str:
    from pydicom.uid import generate_uid

    return generate_uid(prefix=None)  # a UUID under 2.25: no registered root needed, nothing told


def _encoded(header: Mapping[str, Any], pixels: NDArray[np.uint16]) -> bytes:
    from pydicom import dcmwrite
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    image = dataset(header)
    image.SOPInstanceUID = _new_uid()
    image.add_new("PixelData", "OW", pixels.tobytes())
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = MR_IMAGE_STORAGE
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content = BytesIO()
    dcmwrite(content, image, enforce_file_format=True)
    return content.getvalue()
