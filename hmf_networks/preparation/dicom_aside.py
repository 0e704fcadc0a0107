"""Which series are no plain scan of the head, and why: maps, reformats, localisers, diffusion, angiography.

They are left aside, not refused; whoever wants one all the same names it.
"""

import re
from collections.abc import Sequence
from typing import Any

from hmf_networks.preparation.dicom_headers import Image, words_in

MR_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "enhanced MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "legacy converted enhanced MR",
}
PICTURES = "1.2.840.10008.5.1.4.1.1.7"  # secondary captures of every kind
FEWEST_SLICES = 4  # fewer are no scan of a head
LOCALISER_SLICES = 15  # in each of several directions; at most so many

REFORMAT, DIFFUSION = "a reformat or projection of another series", "diffusion"
MAP, ANGIOGRAPHY = "a map that was computed", "angiography"
PERFUSION, SUSCEPTIBILITY = "perfusion", "susceptibility weighting"
# ImageType from its third value on, as Siemens, Philips, GE and the enhanced standard write it.
IMAGE_TYPES = {
    "LOCALIZER": "a localiser",
    **dict.fromkeys(("MPR", "CSA MPR", "CSAPARALLEL", "REFORMATTED", "RESAMPLED", "CPR"), REFORMAT),
    **dict.fromkeys(
        ("MIP", "MAX_IP", "MAXIMUM", "MINIP", "MIN_IP", "MNIP", "VRT", "VOLUME_RENDER", "3D RECON"), REFORMAT
    ),
    **dict.fromkeys(("DIFFUSION", "TRACEW", "TRACE", "ADC", "EADC", "FA", "TENSOR", "DIFFUSION_ANISO"), DIFFUSION),
    **dict.fromkeys(("PERFUSION", "ASL", "CBF", "CBV", "RCBF", "RCBV", "RELCBF", "MTT", "TTP", "TMAX"), PERFUSION),
    **dict.fromkeys(("PERFUSION_ASL", "GBP", "PBP"), PERFUSION),
    **dict.fromkeys(("SWI", "SWAN", "QSM"), SUSCEPTIBILITY),
    **dict.fromkeys(("ANGIO", "TOF", "TIME_OF_FLIGHT", "PHASE_CONTRAST", "VELOCITY", "VELOCITY MAP"), ANGIOGRAPHY),
    **dict.fromkeys(("T1 MAP", "T2 MAP", "T2_STAR MAP", "R2 MAP", "R2_STAR MAP", "B0 MAP", "B1 MAP"), MAP),
    **dict.fromkeys(("T1_MAP", "T2_MAP", "T1MAP", "T2MAP", "FIELD_MAP", "PROTON_DENSITY_MAP"), MAP),
    **dict.fromkeys(("P", "PHASE", "PHASE MAP"), "phase, not magnitude"),
    **dict.fromkeys(("R", "REAL", "I", "IMAGINARY"), "one half of a complex image"),
    **dict.fromkeys(("FAT", "IN_PHASE", "OUT_PHASE", "OPP_PHASE", "FAT_FRACTION"), "a part of a Dixon scan"),
    **dict.fromkeys(("FMRI", "T2_STAR_BOLD"), "functional imaging"),
    **dict.fromkeys(("SCREEN SAVE", "SCREENSAVE"), "a picture of a screen"),
    **dict.fromkeys(("SUB", "SUBTRACT", "SUBTRACTION"), "a difference of two series"),
    "MOSAIC": "a mosaic: a volume in each image",
}
CONTRASTS = {  # of enhanced MR, as far as they are none of ours
    "DIFFUSION": DIFFUSION,
    "PERFUSION": PERFUSION,
    **dict.fromkeys(("TIME_OF_FLIGHT", "FLOW_ENCODED"), ANGIOGRAPHY),
}
NAMES = {
    "a localiser": "locali[sz]er|loc|scout|survey|pilot|aahead|aascout|smart ?brain|(3|three) ?-?(plane|pl)( loc)?",
    "a calibration": "calib(ration)?|(sense|coil|asset) ?(ref|survey|cal)|ref ?scan|shim|b1 ?map",
    MAP: "(b0|t[12]|r2|field) ?map(ping)?|fieldmap|qsm|gre ?field",
    DIFFUSION: "adc|eadc|trace ?w?|dwi?|dti|diff|diffusion|ep2d ?diff|resolve|ivim",
    PERFUSION: "perf|perfusion|pwi|dsc|dce|r?cbf|r?cbv|mtt|ttp|tmax|[23]?d? ?p?c?asl|twist",
    SUSCEPTIBILITY: "swi|swan|swip|mag images|pha images|venobold",
    ANGIOGRAPHY: "tof|mra|mrv|angio|angiography|venog(raphy|raphie)?|pca|[23]d ?pc|pc ?3d|inhance|care ?bolus",
    REFORMAT: "mip|minip|mnip|reformat|reformatted|recon mpr",
    "functional imaging": "bold|fmri|rs ?fmri|resting ?state",
    "spectroscopy": "svs|csi|mrs|spectro(scopy)?",
    "a difference of two series": "subtraction|subtracted",
    "a picture of a screen": "screen ?(save|shot)|screenshot",
}


def aside_reason(images: Sequence[Image], siblings: Sequence[Sequence[Image]]) -> str:
    """Why that stack is no plain scan, in words; "" where nothing speaks against it.

    `siblings`: all stacks of its series, itself among them.
    """
    first = images[0]
    return (
        kind_reason(first)
        or _by_image_type(images)
        or _by_physics(images)
        or _by_name(plain_words(f"{first.text('SeriesDescription')} {first.text('ProtocolName')}"))
        or _by_slices(images, siblings)
    )


def kind_reason(image: Image) -> str:
    """Why that is no MR image at all; "" for one that is."""
    modality, kind = image.text("Modality"), image.text("SOPClassUID")
    if kind.startswith(PICTURES):
        return "a picture of a screen"
    if kind in MR_CLASSES and modality in ("MR", ""):
        return ""
    return f"no MR image, but {_safe(modality) or 'of unknown modality'}"


def is_mr(image: Image) -> bool:
    return not kind_reason(image)


def plain_words(text: str) -> str:
    """Lower case, one space between words: what stands between them means nothing."""
    return " ".join(re.split(r"[^a-z0-9+*]+", text.lower()))


def _safe(text: str) -> str:
    return text if re.fullmatch("[A-Z]{2,16}", text) else ""


def _by_image_type(images: Sequence[Image]) -> str:
    for image in images:
        types = words_in(image.values, "ImageType")
        for word in types[2:]:
            if word in IMAGE_TYPES:
                return IMAGE_TYPES[word]
        if "SECONDARY" in types[:2]:
            return "secondary: made from other images"
    return ""


def _by_physics(images: Sequence[Image]) -> str:
    first = images[0]
    if any((image.number("DiffusionBValue") or 0) > 0 for image in images):
        return DIFFUSION
    if first.text("AcquisitionContrast") in CONTRASTS:
        return CONTRASTS[first.text("AcquisitionContrast")]
    if first.text("AngioFlag") == "Y":
        return ANGIOGRAPHY
    if "EP" in words_in(first.values, "ScanningSequence"):
        return "echo planar imaging"
    if (first.number("NumberOfTemporalPositions") or 1) > 1:
        return "several points in time"
    return ""


def _by_name(words: str) -> str:
    for reason, pattern in NAMES.items():
        if re.search(rf"(?<![a-z0-9+*])({pattern})(?![a-z0-9])", words):
            return reason
    return ""


def _by_slices(images: Sequence[Image], siblings: Sequence[Sequence[Image]]) -> str:
    if len(images) < FEWEST_SLICES:
        return f"{len(images)} slice{'s' if len(images) > 1 else ''} only: a localiser or a picture"
    directions: set[Any] = {tuple(stack[0].numbers("ImageOrientationPatient").round(2)) for stack in siblings}
    if len(directions) > 1 and max(len(stack) for stack in siblings) <= LOCALISER_SLICES:
        return f"a localiser: {len(directions)} directions of few slices"
    return ""
