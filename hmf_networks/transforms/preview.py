"""A picture of volumes in three planes, as radiologists hang them: right of the patient and nose on the left.

Arrays are (X, Y, Z) in RAS+ order, values in [-1, 1].
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PIXELS_PER_MM = 1.2
CAPTION_HEIGHT = 28
CAPTION_SIZES = range(17, 7, -1)  # the first that fits
GAP = 6


def three_planes_png(volumes: Mapping[str, NDArray[np.float32]], spacing_mm: Sequence[float]) -> bytes:
    """One column a volume: axial, coronal, sagittal plane through the middle of the first's foreground.

    Args:
        volumes: caption -> volume; all on one grid.
        spacing_mm: voxel size along X, Y, Z.

    Returns:
        The bytes of a PNG file.
    """
    box = _foreground_box(next(iter(volumes.values())))
    columns = [
        [_tile(volume[box], axis, spacing_mm) for axis in (2, 1, 0)]  # axial, coronal, sagittal
        for volume in volumes.values()
    ]
    width = max(tile.width for tile in columns[0]) + GAP
    height = sum(tile.height + GAP for tile in columns[0]) + CAPTION_HEIGHT
    sheet = Image.new("L", (width * len(columns) + GAP, height), 0)
    draw = ImageDraw.Draw(sheet)
    for number, (name, tiles) in enumerate(zip(volumes, columns, strict=True)):
        left, top = GAP + number * width, CAPTION_HEIGHT
        _write_caption(draw, name, (left + (width - GAP) // 2, CAPTION_HEIGHT // 2), width - GAP)
        for tile in tiles:
            sheet.paste(tile, (left + (width - GAP - tile.width) // 2, top))
            top += tile.height + GAP
    content = io.BytesIO()
    sheet.save(content, format="PNG")
    return content.getvalue()


def _write_caption(draw: ImageDraw.ImageDraw, text: str, centre: tuple[int, int], width: int) -> None:
    """In two lines where one is too long, and no larger than fits: a warning must not end at an edge."""
    in_two_lines = text.replace(", ", ",\n", 1)
    for size in CAPTION_SIZES:
        font = ImageFont.load_default(size=size)
        for lines in (text, in_two_lines):
            left, top, right, bottom = draw.multiline_textbbox(centre, lines, font, anchor="mm", spacing=1)
            if right - left <= width and bottom - top <= CAPTION_HEIGHT:
                draw.multiline_text(centre, lines, 235, font, anchor="mm", spacing=1, align="center")
                return
    draw.text(centre, text, 235, font, anchor="mm")


def _foreground_box(volume: NDArray[np.float32]) -> tuple[slice, slice, slice]:
    inside = np.argwhere(volume > -1)
    if len(inside) == 0:
        return (slice(None), slice(None), slice(None))
    low, high = inside.min(axis=0), inside.max(axis=0) + 1
    return (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))


def _tile(volume: NDArray[np.float32], axis: int, spacing_mm: Sequence[float]) -> Image.Image:
    """The middle plane across `axis`, upright and with square millimetres."""
    plane = np.take(volume, volume.shape[axis] // 2, axis=axis)
    grey = np.round((np.clip(plane, -1, 1) + 1) * 127.5).astype(np.uint8)
    upright = grey[::-1, ::-1].T  # right and front of the patient to the left, top of the head or front up
    across_mm, up_mm = (spacing_mm[a] for a in range(3) if a != axis)
    size = (grey.shape[0] * across_mm * PIXELS_PER_MM, grey.shape[1] * up_mm * PIXELS_PER_MM)
    return Image.fromarray(upright).resize((max(1, round(size[0])), max(1, round(size[1]))), Image.Resampling.BILINEAR)
