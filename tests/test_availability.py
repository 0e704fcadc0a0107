import torch
from hmf_networks.ops.availability import append_masks, available


def test_a_contrast_is_there_when_one_pixel_of_it_is_above_the_background():
    images = torch.full((2, 3, 2, 2), -1.0)
    images[0, 1, 0, 1] = -0.999
    images[1, 2] = 0.0
    assert available(images).tolist() == [[False, True, False], [False, False, True]]


def test_masks_are_constant_over_the_plane_and_follow_the_images():
    images = torch.rand(2, 2, 3, 4)
    with_masks = append_masks(images, torch.tensor([[True, False], [False, True]]))
    assert torch.equal(with_masks[:, :2], images)
    assert with_masks[:, 2:].amin(dim=(2, 3)).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert torch.equal(with_masks[:, 2:].amin(dim=(2, 3)), with_masks[:, 2:].amax(dim=(2, 3)))
