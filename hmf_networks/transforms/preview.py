"""A picture of volumes in three planes, as radiologists hang them: right of the patient and nose on the left."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

TILE_HEIGHT = 220  # pixels of a tile; a caption stands above each row
CAPTION_HEIGHT = 26
MARGIN = 6


def three_planes_png(volumes: Mapping[str, NDArray[np.float32]], spacing_mm: Sequence[float]) -> bytes:
    """One row for each volume: axial, coronal, sagittal through the middle of the foreground of the first.

    Args:
        volumes: name -> (X, Y, Z) in RAS+ order, values in [-1, 1].
        spacing_mm: voxel size along X, Y, Z.

    Returns:
        The bytes of a PNG file.
    """
    first = next(iter(volumes.values()))
    centre = _middle(first)
    rows = [_row(name, volume, centre, spacing_mm) for name, volume in volumes.items()]
    width = max(row.width for row in rows)
    sheet = Image.new("L", (width, sum(row.height for row in rows)), 0)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    content = io.BytesIO()
    sheet.save(content, format="PNG")
    return content.getvalue()


def _middle(volume: NDArray[np.float32]) -> list[int]:
    inside = np.argwhere(volume > -1)
    if len(inside) == 0:
        return [size // 2 for size in volume.shape]
    return [int(index) for index in (inside.min(axis=0) + inside.max(axis=0)) // 2]


def _row(
    name: str, volume: NDArray[np.float32], centre: Sequence[int], spacing_mm: Sequence[float]
) -> Image.Image:
    tiles = [_tile(np.take(volume, centre[axis], axis=axis), axis, spacing_mm) for axis in (2, 1, 0)]
    row = Image.new(
        "L", (sum(tile.width + MARGIN for tile in tiles) + MARGIN, TILE_HEIGHT + CAPTION_HEIGHT + MARGIN), 0
    )
    ImageDraw.Draw(row).text((MARGIN, 5), name, fill=230, font=ImageFont.load_default(size=15))
    left = MARGIN
    for tile in tiles:
        row.paste(tile, (left, CAPTION_HEIGHT))
        left += tile.width + MARGIN
    return row


def _tile(plane: NDArray[np.float32], axis: int, spacing_mm: Sequence[float]) -> Image.Image:
    """A plane (its axes run to the patient's right or front, and front or top) as an upright picture with square millimetres."""
    across_mm, up_mm = (spacing_mm[a] for a in range(3) if a != axis)
    grey = np.round((np.clip(plane, -1, 1) + 1) * 127.5).astype(np.uint8)
    upright = grey[::-1, ::-1].T  # right and front of the patient to the left, top of the head up
    width_mm, height_mm = grey.shape[0] * across_mm, grey.shape[1] * up_mm
    size = (max(1, round(TILE_HEIGHT * width_mm / height_mm)), TILE_HEIGHT)
    return Image.fromarray(upright).resize(size, Image.Resampling.BILINEAR)
