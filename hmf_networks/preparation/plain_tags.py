"""The tags of a scan that tell of no person, under names with their units. Everything else stays where it was."""

import re
from typing import Any

from hmf_networks.preparation.contrast_tags import has_agent
from hmf_networks.preparation.dicom_aside import IMAGE_TYPES, plain_words
from hmf_networks.preparation.dicom_headers import Image, words_in

NUMBERS = {
    "RepetitionTime": "repetition_time_ms",
    "EchoTime": "echo_time_ms",
    "InversionTime": "inversion_time_ms",
    "FlipAngle": "flip_angle_degrees",
    "MagneticFieldStrength": "field_tesla",
    "SliceThickness": "slice_thickness_mm",
    "EchoNumbers": "echo_number",
}
# Words of the standard and of the vendors; what else stands there is not theirs.
CODES = {
    "ScanningSequence": ("scanning_sequence", {"SE", "IR", "GR", "EP", "RM"}),
    "SequenceVariant": ("sequence_variant", {"SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP", "NONE"}),
    "ImageType": (
        "image_type",
        {"ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "M", "ND", "NORM", "DIS2D", "DIS3D", "FIL", "FILTERED", "OTHER"}
        | {"M_SE", "M_FFE", "M_IR", "SE", "FFE", "IR", "NONE", "VOLUME", "UNI", "MEAN", "WATER", *IMAGE_TYPES},
    ),
}
# Set by the vendor, but plain text all the same: it passes only where it looks like a name of a machine.
NAMES = {"Manufacturer": "manufacturer", "ManufacturerModelName": "model", "SequenceName": "sequence_name"}
MACHINE = re.compile(r"[\w .,*+/-]{1,40}", re.ASCII)
VENDORS = ("siemens", "philips", "ge", "general", "canon", "toshiba", "hitachi", "fujifilm", "united", "uih", "bruker")
# Of the description these words pass, in whatever order; a name that is one of them is no loss.
WORDS = re.compile(
    "t[12](wi?)?|pdw?|flair|tirm|stir|dark|fluid|tse|fse|se|ge|gre|ir|f?spgr|bravo|mprage|mp|rage|tfe|ffe|tfl|vibe|thrive"
    "|flash|space|cube|vista|brainview|blade|propeller|multivane|haste|[23]d|ax|axial|sag|sagittal|cor|coronal|tra"
    "|transversal|iso|fs|fatsat|fat|sat|dixon|spair|pre|post|contrast|gd|gad|km|\\+c|c\\+|ce|native|with|without|dual"
    "|double|echo|brain|head|ns|p[23]|swi|dwi|adc|tof|mra|loc|localizer"
)


def plain_tags(image: Image) -> dict[str, Any]:
    """By names such as "echo_time_ms"; what is missing, or does not look as it should, is left out."""
    tags: dict[str, Any] = {
        name: number for keyword, name in NUMBERS.items() if (number := image.number(keyword)) is not None
    }
    for keyword, (name, known) in CODES.items():
        if words := [word for word in words_in(image.values, keyword) if word in known]:
            tags[name] = words
    for keyword, name in NAMES.items():
        text = image.text(keyword)
        if MACHINE.fullmatch(text) and (keyword != "Manufacturer" or text.lower().startswith(VENDORS)):
            tags[name] = text
    words = [word for word in plain_words(image.text("SeriesDescription")).split() if WORDS.fullmatch(word)]
    return tags | {"contrast_agent": has_agent(image.values)} | ({"words": words} if words else {})
