import io

import numpy as np
import pytest
from hmf_networks.reports.picture import draw_files
from hmf_networks.transforms.preview import CAPTION_HEIGHT, GAP, PIXELS_PER_MM, three_planes_png
from PIL import Image

SHAPE = (40, 50, 60)  # X to the right, Y to the front, Z to the top of the head


def tiles(png: bytes, spacing_mm=(1.0, 1.0, 1.0), column: int = 0) -> dict[str, np.ndarray]:
    """The three planes of one column, cut out where the docstring promises them."""
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    mm = {axis: size * spacing for axis, size, spacing in zip("xyz", SHAPE, spacing_mm, strict=True)}
    planes = {"axial": "xy", "coronal": "xz", "sagittal": "yz"}
    sizes = {
        name: (round(mm[across] * PIXELS_PER_MM), round(mm[up] * PIXELS_PER_MM))
        for name, (across, up) in planes.items()
    }
    width = max(size[0] for size in sizes.values()) + GAP
    top, cut = CAPTION_HEIGHT, {}
    for name, (across, up) in sizes.items():
        left = GAP + column * width + (width - GAP - across) // 2
        cut[name] = sheet[top : top + up, left : left + across]
        top += up + GAP
    return cut


def brightest_half(tile: np.ndarray) -> tuple[str, str]:
    row, column = np.unravel_index(tile.argmax(), tile.shape)
    return ("up" if row < tile.shape[0] / 2 else "down", "left" if column < tile.shape[1] / 2 else "right")


def lit(x: slice, y: slice, z: slice) -> np.ndarray:
    volume = np.full(SHAPE, -0.5, np.float32)
    volume[x, y, z] = 1
    return volume


ALL = slice(None)


def test_front_is_up_and_the_patients_right_is_left_in_the_axial_plane():
    png = three_planes_png({"t1": lit(slice(30, 38), slice(40, 48), ALL)}, (1, 1, 1))
    assert brightest_half(tiles(png)["axial"]) == ("up", "left")


def test_the_top_of_the_head_is_up_in_the_coronal_plane():
    png = three_planes_png({"t1": lit(slice(30, 38), ALL, slice(50, 58))}, (1, 1, 1))
    assert brightest_half(tiles(png)["coronal"]) == ("up", "left")


def test_the_top_of_the_head_is_up_and_the_nose_left_in_the_sagittal_plane():
    png = three_planes_png({"t1": lit(ALL, slice(40, 48), slice(50, 58))}, (1, 1, 1))
    assert brightest_half(tiles(png)["sagittal"]) == ("up", "left")


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (0.5, 1, 2), (3, 0.8, 1)])
def test_a_ball_in_millimetres_is_drawn_as_round_as_it_is(spacing_mm):
    mm = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * s for n, s in zip(SHAPE, spacing_mm, strict=True)), indexing="ij")
    radius_mm = 0.4 * min(n * s for n, s in zip(SHAPE, spacing_mm, strict=True))
    volume = np.where(sum(axis**2 for axis in mm) < radius_mm**2, 1, -0.9).astype(np.float32)
    for tile in tiles(three_planes_png({"t1": volume}, spacing_mm), spacing_mm).values():
        rows, columns = (np.ptp(np.nonzero(tile > 128)[axis]) + 1 for axis in (0, 1))
        assert rows == pytest.approx(columns, abs=2.5 * PIXELS_PER_MM * max(spacing_mm))
        assert columns == pytest.approx(2 * radius_mm * PIXELS_PER_MM, abs=2.5 * PIXELS_PER_MM * max(spacing_mm))


def test_every_volume_has_its_column_and_all_show_the_same_place():
    dark, bright = np.full(SHAPE, -0.8, np.float32), np.full(SHAPE, 0.8, np.float32)  # 25.5 and 229.5 of 255
    png = three_planes_png({"dark": dark, "bright": bright}, (1, 1, 1))
    assert np.all(tiles(png, column=0)["axial"] == 25)
    assert np.all(tiles(png, column=1)["axial"] == 230)


def test_values_beyond_the_range_are_drawn_black_or_white():
    png = three_planes_png({"t1": np.full(SHAPE, 9, np.float32)}, (1, 1, 1))
    assert np.all(tiles(png)["axial"] == 255)


@pytest.mark.parametrize("name", ["t1c (synthetic, enhancement unknown)", "a caption of many words"])
def test_a_long_caption_stays_within_its_column(name):
    volume = np.full((160, 160, 20), 0.5, np.float32)
    sheet = np.asarray(Image.open(io.BytesIO(three_planes_png({"t1": volume, name: volume}, (1, 1, 1)))))
    columns = np.flatnonzero(sheet[:CAPTION_HEIGHT].any(axis=0))
    middle = GAP + 192 + GAP // 2  # of the sheet, between the columns
    beginning = columns[columns > middle][0]
    assert beginning >= GAP + 192 + GAP
    assert columns[-1] < sheet.shape[1] - GAP
    assert columns[columns <= middle][-1] - columns[0] < 30  # the other caption, t1, stands alone


def test_files_are_drawn_upright_however_they_are_stored(tmp_path, write_nifti):
    volume = lit(slice(30, 38), slice(40, 48), slice(50, 58)) + 1
    volume[0] = volume[-1] = 0.5  # the corners: background
    stored = {"ras": (volume, np.eye(4)), "lps": (volume[::-1, ::-1], np.diag([-1, -1, 1, 1]))}
    stored["pir"] = (
        volume.transpose(1, 2, 0)[::-1, ::-1],
        np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]),
    )
    pictures = []
    for name, (values, affine) in stored.items():
        path = write_nifti(f"{name}.nii", values, affine.astype(float))
        draw_files({"t1": path}, tmp_path / f"{name}.png")
        pictures.append((tmp_path / f"{name}.png").read_bytes())
    assert pictures[0] == pictures[1] == pictures[2]


def test_files_on_different_grids_are_not_drawn_side_by_side(tmp_path, write_nifti):
    one, two = (
        write_nifti("a.nii", np.arange(210).reshape(5, 6, 7)),
        write_nifti("b.nii", np.arange(240).reshape(5, 6, 8)),
    )
    with pytest.raises(ValueError, match=r"b\.nii: grid"):
        draw_files({"a": one, "b": two}, tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()
