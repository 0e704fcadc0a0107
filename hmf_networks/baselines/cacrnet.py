"""After CACR-Net: a guess from each source, weighed by confidence, then refined (doi 10.1109/JBHI.2021.3082541).

No code of it is public and its layers are not known to us: the three steps are those of its abstract, the
networks in them our choice. Shapes: B batch, S sources, T targets, H x W pixels (multiples of 8), w `width`.
"""

import torch
import torch.nn.functional as F
from hmf_networks.ops.plane import check_plane
from monai.networks.nets import UNet
from torch import Tensor, nn

ESTIMATE_WEIGHT = 100.0  # of the L1 of each estimate and of the aggregate: as that of the refined image


class CACRNet(nn.Module):
    """Confidence-guided aggregation and cross-modality refinement.

    Args:
        spatial_dims: 2.
        in_channels: S, source contrasts in [-1, 1].
        out_channels: T.
        width: channels of the first level of every U-Net; 32.
    """

    def __init__(self, spatial_dims: int = 2, in_channels: int = 2, out_channels: int = 1, *, width: int = 32) -> None:
        super().__init__()
        self.arguments = {
            "spatial_dims": spatial_dims,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "width": width,
        }
        self.out_channels = out_channels
        self.guess = nn.ModuleList(u_net(1, 2 * out_channels, width) for _ in range(in_channels))
        self.refine = u_net(in_channels + out_channels, out_channels, width)

    def forward(self, image: Tensor, side_outputs: bool = False) -> Tensor:
        """(B, S, H, W) -> (B, T, H, W) in [-1, 1]; with `side_outputs` the aggregate and the S guesses follow it."""
        check_plane(image.shape[2], image.shape[3], 8)
        guesses = [guess(image[:, s : s + 1]) for s, guess in enumerate(self.guess)]
        both = torch.stack(guesses)  # S B 2T H W
        estimates = torch.tanh(both[:, :, : self.out_channels])  # S B T H W
        confidences = both[:, :, self.out_channels :].softmax(dim=0)
        aggregate = (confidences * estimates).sum(dim=0)  # B T H W
        refined = torch.tanh(self.refine(torch.cat([image, aggregate], dim=1)))
        if not side_outputs:
            return refined
        return torch.cat([refined, aggregate, estimates.transpose(0, 1).flatten(1, 2)], dim=1)


def u_net(in_channels: int, out_channels: int, width: int) -> UNet:
    """MONAI's, with residual units."""
    channels = (width, 2 * width, 4 * width, 8 * width)
    return UNet(2, in_channels, out_channels, channels, strides=(2, 2, 2), num_res_units=2, norm="BATCH", bias=False)


def estimate_loss(side: Tensor, image: Tensor, target: Tensor) -> Tensor:  # noqa: ARG001 -- one signature for all
    """100 |y - a|_1 of the aggregate and of every guess, summed."""
    guesses = torch.stack(side.split(target.shape[1], dim=1), dim=1)  # type: ignore[no-untyped-call]  # B 1+S T H W
    return ESTIMATE_WEIGHT * guesses.shape[1] * F.l1_loss(guesses, target.unsqueeze(1).expand_as(guesses))
