"""INR-ECGAN: ResNet-18, a pyramid head and a local implicit image function (CAC 2024), from its description.

Shapes: B batch, S sources, T targets, C channels, H x W pixels (multiples of 16), w `width`, R x Q queries.
"""

import torch
import torch.nn.functional as F
from hmf_networks.blocks.conv import ReflectConv2d
from hmf_networks.ops.coordinates import pixel_centres, two_nearest
from hmf_networks.ops.narrow import resize_like
from hmf_networks.ops.plane import check_plane
from torch import Tensor, nn

STRIDE = 2  # pixels a cell of the pyramid's finest map is wide
POOLS = (1, 2, 3, 6)  # cells along a side of the pyramid pooling
NUM_HIDDEN = 4  # layers of the decoder's MLP


class INRECGAN(nn.Module):
    """Decodes at any grid, as HMF-MambaINR does, but without an encoding of the coordinates.

    Args:
        spatial_dims: 2.
        in_channels: S, source contrasts in [-1, 1]; the original takes one radar image.
        out_channels: T; the original makes three colours.
        width: channels of the first stage; 64 in the original (78.2 M parameters).

    What differs from the original: the number of channels, and a tanh, since it has no bound. It is trained without
    a pixel loss; beside others it gets theirs.
    """

    def __init__(self, spatial_dims: int = 2, in_channels: int = 1, out_channels: int = 3, *, width: int = 64) -> None:
        super().__init__()
        self.arguments = {
            "spatial_dims": spatial_dims,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "width": width,
        }
        channels = (2 * width, 4 * width, 8 * width, 16 * width)
        self.stem = nn.Sequential(ReflectConv2d(in_channels, width, 7), nn.InstanceNorm2d(width), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList(
            nn.Sequential(BasicBlock(a, b, stride=2), BasicBlock(b, b))
            for a, b in zip((width, *channels[:-1]), channels, strict=True)
        )
        self.pyramid = PyramidHead(channels, 8 * width)
        self.decoder = LocalImplicitFunction(8 * width, out_channels, hidden_channels=4 * width)

    def forward(self, image: Tensor, coordinates: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(B, S, H, W) -> (B, T, R, Q) in [-1, 1]; coordinates as those of `HMFMambaINR`, by default the own pixels."""
        height, width = image.shape[2:]
        check_plane(height, width, 16)
        if coordinates is None:
            coordinates = (pixel_centres(height, height, image.device), pixel_centres(width, width, image.device))
        x, maps = self.stem(image), []
        for stage in self.stages:
            x = stage(x)  # half as large
            maps.append(x)
        return self.decoder(self.pyramid(maps), coordinates[0], coordinates[1])


class BasicBlock(nn.Module):
    """Of ResNet-18."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_norm(in_channels, out_channels, 3, stride),
            nn.ReLU(inplace=True),
            *_conv_norm(out_channels, out_channels, 3, 1),
        )
        same = stride == 1 and in_channels == out_channels
        self.short = nn.Identity() if same else nn.Sequential(*_conv_norm(in_channels, out_channels, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.short(x))


class PyramidHead(nn.Module):
    """UPerNet's: pooled contexts on the smallest map, sums from coarse to fine, all maps joined on the finest."""

    def __init__(self, in_channels: tuple[int, ...], channels: int) -> None:
        super().__init__()
        last = in_channels[-1]
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), _pooled_conv(last, channels, size), nn.ReLU()) for size in POOLS
        )
        self.join_pools = _conv_relu(last + len(POOLS) * channels, channels, 3)
        self.lateral = nn.ModuleList(_conv_relu(size, channels, 1) for size in in_channels[:-1])
        self.smooth = nn.ModuleList(_conv_relu(channels, channels, 3) for _ in in_channels[:-1])
        self.join = _conv_relu(len(in_channels) * channels, channels, 3)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Fine to coarse -> (B, C, H/2, W/2)."""
        smallest = maps[-1]
        pooled = [resize_like(pool(smallest), smallest) for pool in self.pools]
        levels = [self.join_pools(torch.cat([smallest, *pooled], dim=1))]
        for lateral, x in reversed(list(zip(self.lateral, maps[:-1], strict=True))):
            levels.insert(0, lateral(x) + resize_like(levels[0], x))
        smoothed = [smooth(level) for smooth, level in zip(self.smooth, levels[:-1], strict=True)]
        return self.join(torch.cat([resize_like(level, smoothed[0]) for level in [*smoothed, levels[-1]]], dim=1))


class LocalImplicitFunction(nn.Module):
    """LIIF (Chen 2021): the four nearest features, each with offset and cell size, through one MLP; area weights."""

    def __init__(self, in_channels: int, out_channels: int, *, hidden_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (in_channels + 4, *[hidden_channels] * (NUM_HIDDEN - 1)):
            layers += [nn.Linear(channels, hidden_channels), nn.ReLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden_channels, out_channels))

    def forward(self, features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Decode at rows x columns, in pixels of the plane: (B, T, R, Q)."""
        row_cells, row_offsets, row_areas = two_nearest(rows, STRIDE, features.shape[2])
        column_cells, column_offsets, column_areas = two_nearest(columns, STRIDE, features.shape[3])
        cell = features.new_tensor([_spacing(rows), _spacing(columns)]) / STRIDE  # of a query, in cells of the map
        corners = features.permute(0, 2, 3, 1)  # B h w C
        image = features.new_zeros(1)
        for r in range(2):
            for q in range(2):
                nearest = corners[:, row_cells[r]][:, :, column_cells[q]]  # B R Q C
                offset = torch.stack(torch.meshgrid(row_offsets[r], column_offsets[q], indexing="ij"), dim=-1)
                where = torch.cat([offset, cell.expand_as(offset)], dim=-1).to(nearest.dtype)  # R Q 4
                answer = self.mlp(torch.cat([nearest, where.expand(len(nearest), -1, -1, -1)], dim=-1))
                image = image + (row_areas[r].unsqueeze(-1) * column_areas[q]).unsqueeze(-1) * answer
        return torch.tanh(image).permute(0, 3, 1, 2).to(features.dtype)


def _pooled_conv(in_channels: int, out_channels: int, size: int) -> nn.Module:
    """A single cell has no spread to be normalised by, where the batch is one plane."""
    if size == 1:
        return nn.Conv2d(in_channels, out_channels, 1)
    return nn.Sequential(*_conv_norm(in_channels, out_channels, 1, 1))


def _spacing(places: Tensor) -> float:
    return float((places[-1] - places[0]) / (len(places) - 1)) if len(places) > 1 else 1.0


def _conv_norm(in_channels: int, out_channels: int, kernel_size: int, stride: int) -> tuple[nn.Module, nn.Module]:
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
    return conv, nn.BatchNorm2d(out_channels)


def _conv_relu(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(*_conv_norm(in_channels, out_channels, kernel_size, 1), nn.ReLU(inplace=True))
