import torch
from hmf_networks.blocks.foreground import AppendForeground


def test_a_pixel_is_foreground_when_any_source_has_signal_there():
    image = torch.tensor([[-1.0, -1.0, 0.5], [-1.0, -0.999, -1.0]]).reshape(1, 2, 1, 3)
    appended = AppendForeground()(image)
    assert torch.equal(appended[:, :2], image)
    assert appended[0, 2, 0].tolist() == [0.0, 1.0, 1.0]


def test_the_channel_has_the_type_of_the_image():
    assert AppendForeground()(torch.zeros(1, 1, 2, 2, dtype=torch.float16)).dtype == torch.float16


def test_masks_are_no_signal():
    image = torch.tensor([-1.0, 0.5, 1.0, 1.0]).reshape(1, 2, 1, 2)
    assert AppendForeground(num_masks=1)(image)[0, 2, 0].tolist() == [0.0, 1.0]
