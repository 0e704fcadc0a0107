import logging

import pytest
import torch
from hmf_networks.data.slices import SliceDataset
from hmf_networks.ops.coordinates import sample_plane
from hmf_networks.transforms.slices import (
    KeepBrainSlicesd,
    PlanesToGridd,
    brain_slices,
    crop_planes,
    foreground_box,
    pad_planes,
    resample_planes,
    resampled_size,
    slice_axis,
    source_pixel_centres,
)
from monai.data import MetaTensor

CHANGED_PIXELS = [(40, 0.5), (50, 0.719), (37, 1.4), (30, 2.0), (41, 0.93)]  # pixels, mm each


def volume(values: torch.Tensor, *spacing_mm: float) -> MetaTensor:
    return MetaTensor(values, affine=torch.diag(torch.tensor([*spacing_mm, 1.0], dtype=torch.float64)))


def test_planes_of_the_right_pixel_size_are_padded_and_not_touched():
    image = torch.rand(2, 20, 22, 5)
    planes = PlanesToGridd("image", size=[32, 40])({"image": volume(image, 1, 1, 3)})["image"]
    assert torch.equal(planes[:, 6:26, 9:31], image)
    assert torch.all(planes[:, :6] == -1)
    assert torch.all(planes[:, :, 31:] == -1)


def test_planes_larger_than_the_grid_keep_their_centre():
    image = torch.rand(1, 40, 20, 3)
    planes = PlanesToGridd("image", size=[16, 16])({"image": volume(image, 1, 1, 1)})["image"]
    assert torch.equal(planes, image[:, 12:28, 2:18])


@pytest.mark.parametrize("size", [(20, 31), (21, 30), (32, 9)])
def test_cropping_undoes_padding(size):
    planes = torch.rand(3, 2, *size)
    padded, _ = pad_planes(planes, (33, 34))
    assert torch.equal(crop_planes(padded, size), planes)


def test_padding_tells_where_the_first_pixel_went():
    planes = torch.rand(1, 1, 5, 8)
    padded, (rows, columns) = pad_planes(planes, (16, 11))
    assert torch.equal(padded[:, :, rows : rows + 5, columns : columns + 8], planes)


@pytest.mark.parametrize(("size", "new"), [(320, 230), (139, 104), (41, 38), (256, 240)])
def test_resampled_air_is_still_exactly_air(size, new):
    assert torch.equal(resample_planes(torch.full((1, 1, size, size), -1.0), (new, new)), -torch.ones(1, 1, new, new))


@pytest.mark.parametrize(("size", "mm"), CHANGED_PIXELS)
def test_resampling_keeps_a_constant(size, mm):
    new = resampled_size(size, mm, 1.0)
    planes = resample_planes(torch.full((1, 1, size, size), 0.3), (new, new))
    torch.testing.assert_close(planes, torch.full((1, 1, new, new), 0.3), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("size", "mm"), CHANGED_PIXELS)
def test_a_ramp_in_millimetres_stays_the_ramp_in_millimetres(size, mm):
    """Source pixels -> network pixels -> source pixel centres; the outermost pixels feel the border."""
    source_mm = torch.arange(size) * mm + mm / 2  # from the edge of the field
    planes = (source_mm[:, None] - 0.3 * source_mm)[None, None].float()
    new = resampled_size(size, mm, 1.0)
    resampled = resample_planes(planes, (new, new))
    new_mm = (torch.arange(new) + 0.5) * (size * mm / new)
    padded, before = pad_planes(resampled, (new + 7, new + 12))
    back = sample_plane(padded, *(source_pixel_centres(size, new, start) for start in before))
    # Averaging to larger pixels weighs whole source pixels: the ramp wobbles by up to 0.07 pixels.
    wobble_mm = 0.1 if new < size and size % new else 1e-4
    for ramp, wanted in ((resampled[0, 0], new_mm[:, None] - 0.3 * new_mm), (back[0, 0], planes[0, 0])):
        error_mm = (ramp - wanted)[8:-8, 8:-8]
        assert error_mm.abs().max() < wobble_mm
        assert error_mm.mean().abs() < wobble_mm / 20 + 1e-5


def test_a_volume_resampled_for_training_covers_the_same_field():
    x_mm, y_mm = torch.arange(40) * 0.5 + 0.25 - 10, torch.arange(24) * 1.5 + 0.75 - 18  # from the centre
    image = (x_mm[:, None] + 2 * y_mm).float()[None, ..., None].expand(-1, -1, -1, 2)
    planes = PlanesToGridd("image", size=[24, 40])({"image": volume(image, 0.5, 1.5, 1)})["image"]
    new_x, new_y = torch.arange(24) + 0.5 - 12, torch.arange(40) + 0.5 - 20
    wanted = new_x[:, None] + 2 * new_y
    torch.testing.assert_close(planes[0, 4:20, 5:35, 0], wanted[4:20, 5:35], atol=1e-4, rtol=0)


def head(num_slices: int, brain: slice) -> torch.Tensor:
    """(1, X, Y, Z) in [-1, 1]; every slice of brain tells its number."""
    image = torch.full((1, 8, 9, num_slices), -1.0)
    image[:, 2:6, 2:6, brain] = torch.linspace(-0.9, 0.9, num_slices)[brain]
    return image


@pytest.mark.parametrize("brain", [slice(4, 26), slice(10, 13), slice(7, 8)])
def test_every_subject_gives_the_same_number_of_slices_and_only_brain(brain):
    image = head(30, brain)
    image[:, 0, 0, 1] = 1.0  # a speck is no brain
    kept = KeepBrainSlicesd(["image", "label"], num_slices=7)({"image": image, "label": image.clone()})
    assert kept["image"].shape[-1] == 7
    shown = kept["image"][0, 2, 2].tolist()
    assert set(shown) <= set(image[0, 2, 2, brain].tolist())
    assert {shown[0], shown[-1]} == {image[0, 2, 2, brain][0].item(), image[0, 2, 2, brain][-1].item()}
    assert shown == sorted(shown)
    assert torch.equal(kept["image"], kept["label"])


def test_a_slice_counts_as_brain_from_a_fair_share_of_the_fullest():
    image = torch.full((2, 10, 10, 4), -1.0)
    image[:, :, :, 1] = 0.0
    image[:, :4, :4, 2] = 0.0  # 16 of 100 pixels
    image[:, :3, :4, 3] = 0.0  # 12 of 100
    assert brain_slices(image).tolist() == [1, 2]


def test_axial_planes_across_thick_slices_are_warned_of(caplog):
    assert slice_axis([1.0, 5.0, 1.0], "axial") == 2
    assert "5.0 mm thick" in caplog.text
    assert "acquisition" in caplog.text


@pytest.mark.parametrize("spacing", [[0.9, 0.9, 5.0], [1.0, 1.0, 1.0], [1.2, 1.0, 1.0]])
def test_axial_planes_along_the_slices_are_not_warned_of(caplog, spacing):
    with caplog.at_level(logging.WARNING):
        assert slice_axis(spacing, "axial") == 2
    assert caplog.text == ""


@pytest.mark.parametrize(("spacing", "axis"), [([5, 0.9, 0.9], 0), ([1, 4, 1], 1), ([1, 1, 4], 2), ([1.2, 1, 1], 2)])
def test_the_plane_of_acquisition_cuts_the_coarsest_axis(spacing, axis):
    assert slice_axis(spacing, "acquisition") == axis


def test_planes_of_acquisition_are_those_of_the_coarsest_axis():
    image = torch.rand(1, 4, 10, 12)
    planes = PlanesToGridd("image", size=[10, 12], plane="acquisition")({"image": volume(image, 4, 1, 1)})
    assert torch.equal(planes["image"], image.movedim(1, -1))


def test_an_unknown_plane_is_refused():
    with pytest.raises(ValueError, match="plane must be one of"):
        slice_axis([1, 1, 1], "sagital")


def slices_of(records: list[dict], augmentation=None) -> SliceDataset:
    def read(record: dict) -> dict:
        values = torch.arange(3.0) + 10 * record["number"]
        return {"image": values.expand(2, 4, 4, 3).clone(), "label": -values.expand(1, 4, 4, 3).clone(), "x": 0}

    return SliceDataset(records, read, augmentation, num_slices=3, progress=False)


def test_an_epoch_is_every_slice_of_every_record_once():
    dataset = slices_of([{"number": 1}, {"number": 2}])
    samples = [dataset[index] for index in range(len(dataset))]
    assert [sample["image"][0, 0, 0].item() for sample in samples] == [10, 11, 12, 20, 21, 22]
    assert all(torch.equal(sample["image"][:1], -sample["label"]) for sample in samples)
    assert samples[0].keys() == {"image", "label"}


def test_augmentation_never_reaches_the_cache():
    def spoil(sample: dict) -> dict:
        sample["image"].zero_()
        return sample

    dataset = slices_of([{"number": 1}], spoil)
    assert dataset[1]["image"].sum() == 0
    dataset.augmentation = None
    assert dataset[1]["image"][0, 0, 0] == 11


def test_no_subject_is_an_error_and_not_an_empty_epoch():
    with pytest.raises(ValueError, match="no subject to train on"):
        slices_of([])


def test_resampling_averages_where_pixels_become_larger():
    """The mean of 16 pixels of noise is a quarter as strong; picking some of them would leave half."""
    noise = torch.randn(1, 1, 80, 80)
    assert resample_planes(noise, (20, 20)).std() < 0.3 * noise.std()


def test_slices_are_kept_along_the_axis_that_the_planes_cut():
    image = volume(head(30, slice(4, 26)).movedim(-1, 1), 5, 1, 1)
    keep = KeepBrainSlicesd(["image"], num_slices=7, plane="acquisition")
    along_x = keep({"image": image})["image"]
    along_z = KeepBrainSlicesd(["image"], num_slices=7)({"image": image.movedim(1, -1)})["image"]
    assert along_x.shape == (1, 7, 8, 9)
    assert torch.equal(along_x.movedim(1, -1), along_z)


def test_the_box_holds_all_signal_and_nothing_around_it():
    planes = torch.full((3, 2, 10, 12), -1.0)
    planes[0, 1, 2, 7] = planes[2, 0, 6, 4] = 0.5
    assert foreground_box(planes) == (slice(2, 7), slice(4, 8))
    assert foreground_box(torch.full((3, 2, 10, 12), -1.0)) == (slice(None), slice(None))


def test_planes_of_the_box_are_those_of_a_volume_cut_by_hand():
    volume = torch.full((2, 20, 22, 5), -1.0)
    volume[:, 3:11, 9:21, 1:4] = torch.rand(2, 8, 12, 3)
    label = torch.rand(1, 20, 22, 5)
    boxed = PlanesToGridd(["image", "label"], size=(16, 16), box=True)({"image": volume, "label": label})
    by_hand = PlanesToGridd(["image", "label"], size=(16, 16))(
        {"image": volume[:, 3:11, 9:21], "label": label[:, 3:11, 9:21]}
    )
    assert torch.equal(boxed["image"], by_hand["image"])
    assert torch.equal(boxed["label"], by_hand["label"])


def test_a_slice_counts_where_every_contrast_that_is_there_has_signal():
    volume = torch.full((3, 4, 4, 6), -1.0)
    volume[0, ..., 1:6] = 0.5
    volume[2, ..., 0:4] = 0.5  # the second contrast is missing
    assert brain_slices(volume).tolist() == [1, 2, 3]
