import pytest
import torch
from hmf_networks.transforms.jitter import FineLabeld, RandScannerd


def planes() -> torch.Tensor:
    image = torch.rand(3, 8, 8) * 1.6 - 0.8
    image[:, :2] = -1.0
    image[2] = -1.0  # a contrast that is missing
    return image


def taken(image: torch.Tensor, **options: float) -> torch.Tensor:
    transform = RandScannerd("image", **options)
    transform.set_random_state(seed=1)
    return transform({"image": image})["image"]


def test_background_stays_background_and_signal_stays_signal():
    image = planes()
    for _ in range(5):
        other = taken(image, prob=1.0, noise=0.5)
        assert torch.equal(other > -1, image > -1)
        assert other.max() <= 1
        assert not torch.equal(other, image)


def test_without_noise_the_order_of_the_values_stays():
    image = planes()
    other = taken(image, prob=1.0, noise=0.0)
    for before, after in zip(image[:2], other[:2], strict=True):
        order = before.flatten().argsort()
        assert (after.flatten()[order].diff() >= 0).all()


def test_channels_are_taken_each_for_itself_and_none_at_zero():
    image = planes()
    assert torch.equal(taken(image, prob=0.0), image)
    image[1] = image[0]
    other = taken(image, prob=1.0)
    assert not torch.equal(other[0], other[1])


def test_the_label_is_the_fine_plane_and_the_image_its_average():
    image = planes()
    sample = FineLabeld("image")({"image": image})
    assert torch.equal(sample["label"], image)
    assert sample["image"].shape == (3, 4, 4)
    assert sample["image"][0, 2, 1].item() == pytest.approx(image[0, 4:6, 2:4].mean().item(), abs=1e-6)
    assert (sample["image"][2] == -1).all()
