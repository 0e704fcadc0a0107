"""HMF-MambaINR: encoder, episodic bottleneck, implicit decoder. Paper section 3.1, figure 1a.

Shapes: B batch, S sources, H x W pixels (multiples of 4 * patch_size), w `width`, s `inr_stride`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hmf_networks.blocks.conv import ConvBlock, UpConvBlock
from hmf_networks.blocks.foreground import AppendForeground
from hmf_networks.blocks.inrb import INRB, NUM_FREQUENCIES
from hmf_networks.blocks.mfeb import MFEB, SELECTIVE_FUSIONS, ConcatReduce
from hmf_networks.blocks.mfm import MFM, AddFusion
from hmf_networks.blocks.rcg import RCG
from hmf_networks.blocks.rhmb import RHMB
from hmf_networks.blocks.stand_ins import ConvContext, mlp_head, pixel_head
from hmf_networks.naming import check_switch
from hmf_networks.ops.coordinates import pixel_centres
from hmf_networks.ops.narrow import resize_like
from hmf_networks.ops.plane import check_plane
from torch import Tensor, nn

CONTEXTS = {"rhmb": RHMB, "conv": ConvContext}
MULTI_SCALES = {"mfeb": MFEB, "concat": ConcatReduce}
MODULATIONS = {"mfm": MFM, "add": AddFusion}
DECODERS: dict[str, Callable[..., nn.Module]] = {"inrb": INRB, "mlp": mlp_head, "pixel": pixel_head}


class HMFMambaINR(nn.Module):
    """Synthesise a missing MRI contrast from the others, on any grid.

    Args:
        spatial_dims: 2; volumes are walked slice by slice (`hmf_networks.engines.SliceSynthesisInferer`).
        in_channels: source contrasts, stacked, in [-1, 1].
        out_channels: target contrasts.
        width: channels of the first stage; the bottleneck has four times as many. 64 for the paper.
        patch_size: side of the patches the RHMB tokenises into: 1, 2 or 4.
        directions: scan directions of the SSM: 1, 2 or 4.
        state_size: N of the SSM.
        expand: inner width of the SSM branch over the bottleneck width.
        num_residual_blocks: residual CNN blocks in each RCG.
        num_masks: so many of `in_channels`, the last, say which sources there are (any-to-any).
        append_foreground: show the encoder where there is signal, in a channel more (not in the paper).
        encoder_skips: hand encoder features to the decoder (the paper names none).
        inr_stride: input pixels a cell of the INRB's feature map is wide: 2, or 1 (its neighbours collapse).
        inr_hidden_channels: width of the INRB's MLP.
        inr_num_hidden: hidden layers of the INRB's MLP.
        num_frequencies: L of the periodic encoding.
        context: "rhmb", or "conv" (ablation w/o RHMB).
        multi_scale: "mfeb", or "concat" (w/o MFEB).
        selective_fusion: "msf", or "conv" (w/o MSF).
        modulation: "mfm", or "add" (w/o MFM).
        decoder: "inrb", or "mlp" (w/o INR), or "pixel" (figure 9).

    Raises:
        ValueError: a size or name that is not one of the above; a plane that cannot be tokenised.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 2,
        out_channels: int = 1,
        *,
        width: int = 64,
        patch_size: int = 2,
        directions: int = 4,
        state_size: int = 16,
        expand: int = 2,
        num_residual_blocks: int = 3,
        num_masks: int = 0,
        append_foreground: bool = False,
        encoder_skips: bool = False,
        inr_stride: int = 2,
        inr_hidden_channels: int = 64,
        inr_num_hidden: int = 3,
        num_frequencies: int = NUM_FREQUENCIES,
        context: str = "rhmb",
        multi_scale: str = "mfeb",
        selective_fusion: str = "msf",
        modulation: str = "mfm",
        decoder: str = "inrb",
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self.arguments = arguments  # what builds it again: model.json remembers them
        _one_of("spatial_dims", spatial_dims, (2,))
        _one_of("patch_size", patch_size, (1, 2, 4))
        _one_of("inr_stride", inr_stride, (1, 2))
        append_foreground = check_switch("append_foreground", append_foreground)
        _one_of("context", context, CONTEXTS)
        _one_of("multi_scale", multi_scale, MULTI_SCALES)
        _one_of("selective_fusion", selective_fusion, SELECTIVE_FUSIONS)
        _one_of("modulation", modulation, MODULATIONS)
        _one_of("decoder", decoder, DECODERS)
        self.multiple = 4 * patch_size
        self.smallest_side = 8  # the reflection padding of the RCG needs a map of two cells
        self.encoder_skips = check_switch("encoder_skips", encoder_skips)
        self.stride = inr_stride
        wide, middle, narrow = 4 * width, 2 * width, width

        self.append_foreground = AppendForeground(num_masks) if append_foreground else nn.Identity()
        self.encode_1 = ConvBlock(in_channels + int(append_foreground), narrow, kernel_size=7, padding_mode="reflect")
        self.encode_2 = ConvBlock(narrow, middle, stride=2)
        self.encode_3 = ConvBlock(middle, wide, stride=2)

        ssm = {"patch_size": patch_size, "state_size": state_size, "directions": directions, "expand": expand}
        self.context_1 = CONTEXTS[context](wide, **ssm)
        self.rcg_1 = RCG(wide, num_blocks=num_residual_blocks)
        self.context_2 = CONTEXTS[context](wide, **ssm)
        self.rcg_2 = RCG(wide, num_blocks=num_residual_blocks)
        self.context_3 = CONTEXTS[context](wide, **ssm)
        self.multi_scale = MULTI_SCALES[multi_scale](wide, num_stages=3, selective_fusion=selective_fusion)

        skip = 2 if encoder_skips else 1
        self.side_1 = ConvBlock(wide, wide)
        self.side_2 = ConvBlock(wide, middle)
        self.side_3 = ConvBlock(wide, narrow)
        self.fuse_1 = MODULATIONS[modulation](wide)
        self.up_2 = UpConvBlock(skip * wide, middle)
        self.fuse_2 = MODULATIONS[modulation](middle)
        self.up_3 = UpConvBlock(skip * middle, narrow) if inr_stride == 1 else ConvBlock(skip * middle, narrow)
        self.fuse_3 = MODULATIONS[modulation](narrow)
        self.merge = ConvBlock(narrow * (1 + inr_stride**2), middle) if encoder_skips else nn.Identity()
        self.head = DECODERS[decoder](
            middle if encoder_skips else narrow,
            out_channels,
            stride=inr_stride,
            hidden_channels=inr_hidden_channels,
            num_hidden=inr_num_hidden,
            num_frequencies=num_frequencies,
        )

    def forward(
        self,
        image: Tensor,
        coordinates: tuple[Tensor, Tensor] | None = None,
        output_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Synthesise the target.

        Args:
            image: sources in [-1, 1], then the masks, if any, (B, S, H, W).
            coordinates: rows (R,) and columns (Q,) to decode at, in pixels of the input plane; the centre of
                its first pixel is 0. Default: the input's own pixels.
            output_size: R x Q equal pixels that cover the input plane; another way to give coordinates.

        Returns:
            Target in [-1, 1], (B, out_channels, R, Q).
        """
        height, width = image.shape[2], image.shape[3]
        check_plane(height, width, self.multiple, self.smallest_side)
        image = self._in_multiples(image)
        if coordinates is None:
            size = (height, width) if output_size is None else output_size
            coordinates = (pixel_centres(height, size[0], image.device), pixel_centres(width, size[1], image.device))
        return self.head(self.features(image), coordinates[0], coordinates[1])  # B out R Q

    def _in_multiples(self, image: Tensor) -> Tensor:
        """The same view, its sides told as multiples: torch.export can follow those through every stride."""
        batch, sources, height, width = image.shape
        rows, columns = height // self.multiple, width // self.multiple
        return image.reshape(batch, sources, rows * self.multiple, columns * self.multiple)

    def features(self, image: Tensor) -> Tensor:
        """What the INRB reads: (B, w or 2w, H/s, W/s). Computed once, decoded at any number of grids."""
        encoded_1 = self.encode_1(self.append_foreground(image))  # B w H W
        encoded_2 = self.encode_2(encoded_1)  # B 2w H/2 W/2
        encoded_3 = self.encode_3(encoded_2)  # B 4w H/4 W/4

        stage_1 = self.context_1(encoded_3)  # B 4w H/4 W/4
        stage_2 = self.context_2(self.rcg_1(stage_1))
        stage_3 = self.context_3(self.rcg_2(stage_2))
        side = self.multi_scale([stage_1, stage_2, stage_3])

        decoded = self.fuse_1(self.side_1(side), stage_3)  # B 4w H/4 W/4
        decoded = self.up_2(self._join(decoded, encoded_3))  # B 2w H/2 W/2
        decoded = self.fuse_2(resize_like(self.side_2(side), decoded), decoded)
        decoded = self.up_3(self._join(decoded, encoded_2))  # B w H/s W/s
        decoded = self.fuse_3(resize_like(self.side_3(side), decoded), decoded)
        if self.encoder_skips:
            decoded = self.merge(torch.cat([decoded, F.pixel_unshuffle(encoded_1, self.stride)], dim=1))
        return decoded

    def _join(self, decoded: Tensor, encoded: Tensor) -> Tensor:
        return torch.cat([decoded, encoded], dim=1) if self.encoder_skips else decoded


def _one_of(name: str, value: object, choices: object) -> None:
    known = list(choices)  # type: ignore[call-overload]
    if value not in known:
        raise ValueError(f"{name} must be one of {known}, got {value!r}")
