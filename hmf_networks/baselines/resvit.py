"""ResViT: a transformer inside residual blocks (Dalmaz et al., IEEE TMI 2022), written from its description.

Shapes: B batch, S sources, C channels, H x W pixels (multiples of 16), w `width`, L tokens, D = 12 w.
"""

import torch
import torch.nn.functional as F
from hmf_networks.blocks.conv import ConvBlock, UpConvBlock
from hmf_networks.blocks.resnet import ChannelCompression, ResnetBlock, image_head
from hmf_networks.ops.plane import check_plane
from torch import Tensor, nn

NUM_BLOCKS, WITH_TRANSFORMER = 9, (0, 5)  # the first and the sixth
NUM_LAYERS, NUM_HEADS, MLP_RATIO = 12, 12, 4  # of ViT-B/16
GRID = 16  # tokens along a side that the position codes are learned at, 256 pixels; others are interpolated


class ResViT(nn.Module):
    """ResNet generator whose bottleneck consults one transformer twice.

    Args:
        spatial_dims: 2.
        in_channels: S, source contrasts in [-1, 1].
        out_channels: target contrasts.
        width: channels of the first stage; 64 in the original (123.4 M parameters).
        num_layers: of the transformer; 12.

    What differs from the original: trained at one go and from nothing, where the authors first train the CNN
    alone and take a transformer that ImageNet has trained; position codes are interpolated to any plane.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 2,
        out_channels: int = 1,
        *,
        width: int = 64,
        num_layers: int = NUM_LAYERS,
    ) -> None:
        super().__init__()
        self.arguments = {
            "spatial_dims": spatial_dims,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "width": width,
            "num_layers": num_layers,
        }
        wide, middle, narrow = 4 * width, 2 * width, width
        self.encode = nn.Sequential(
            ConvBlock(in_channels, narrow, kernel_size=7, padding_mode="reflect"),
            ConvBlock(narrow, middle, stride=2),
            ConvBlock(middle, wide, stride=2),
        )
        self.transformer = Transformer(16 * width, NUM_HEADS * width, num_layers=num_layers)
        self.consult = nn.ModuleList(Consultation(wide, NUM_HEADS * width) for _ in WITH_TRANSFORMER)
        self.cnn = nn.ModuleList(ResnetBlock(wide) for _ in range(NUM_BLOCKS))
        self.decode = nn.Sequential(
            UpConvBlock(wide, middle), UpConvBlock(middle, narrow), image_head(narrow, out_channels)
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, S, H, W) -> (B, T, H, W) in [-1, 1]."""
        check_plane(image.shape[2], image.shape[3], 16)
        x = self.encode(image)  # B 4w H/4 W/4
        for place, cnn in enumerate(self.cnn):
            if place in WITH_TRANSFORMER:
                x = self.consult[WITH_TRANSFORMER.index(place)](x, self.transformer)
            x = cnn(x)
        return self.decode(x)


class Consultation(nn.Module):
    """The way of a map down to the tokens of the transformer, and back up beside itself."""

    def __init__(self, channels: int, token_channels: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            ConvBlock(channels, 2 * channels, stride=2), ConvBlock(2 * channels, 4 * channels, stride=2)
        )
        self.up = nn.Sequential(UpConvBlock(token_channels, 2 * channels), UpConvBlock(2 * channels, channels))
        self.compress = ChannelCompression(2 * channels, channels)

    def forward(self, x: Tensor, transformer: nn.Module) -> Tensor:
        return self.compress(x, self.up(transformer(self.down(x))))  # B C H W


class Transformer(nn.Module):
    """ViT-B over the pixels of a small map: (B, in, h, w) -> (B, D, h, w)."""

    def __init__(self, in_channels: int, channels: int, *, num_layers: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(in_channels, channels, 1)
        self.positions = nn.Parameter(0.02 * torch.randn(1, channels, GRID, GRID))
        layer = nn.TransformerEncoderLayer(
            channels, NUM_HEADS, MLP_RATIO * channels, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(channels), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        embedded = self.embed(x)
        positions = F.interpolate(self.positions, size=embedded.shape[2:], mode="bicubic", align_corners=False)
        tokens = (embedded + positions).flatten(2).transpose(1, 2)  # B L D
        return self.layers(tokens).transpose(1, 2).reshape(embedded.shape)
