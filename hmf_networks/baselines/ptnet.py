"""PTNet: a pyramid of linear-attention transformers (Zhang et al., IEEE TMI 2022), written from its description.

Shapes: B batch, S sources, C channels, H x W pixels (multiples of 16), L tokens, D trunk, M random features.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from hmf_networks.ops.plane import check_plane
from torch import Tensor, nn

NUM_LAYERS, NUM_HEADS, MLP_RATIO = 9, 4, 2  # of a trunk
LOCAL_TRUNK, GLOBAL_TRUNK = 8, 16  # widths, in `width`: 256 and 512
FIRST_PATCH, PATCH = 7, 3  # side of the neighbourhoods that become tokens


class PTNet(nn.Module):
    """A pyramid at full size that listens to another at half size.

    Args:
        spatial_dims: 2.
        in_channels: S, source contrasts in [-1, 1]; the original is fixed at one.
        out_channels: target contrasts.
        width: channels of the first tokens; 32 in the original (27.6 M parameters that learn, with one source).
        num_layers: transformer layers of each trunk; 9.

    What differs from the original: any number of sources, and planes of any multiple of 16. Where the description
    leaves open how the two pyramids meet: the last tokens of the half-sized one are added to the full-sized one's
    of that size, through one linear layer.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        *,
        width: int = 32,
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
        self.coarse = Pyramid(in_channels, width, GLOBAL_TRUNK * width, num_layers=num_layers)
        self.fine = Pyramid(in_channels, width, LOCAL_TRUNK * width, num_layers=num_layers)
        self.listen = nn.Linear(width, 2 * width)
        self.image = nn.Linear(width + in_channels, out_channels)

    def forward(self, image: Tensor) -> Tensor:
        """(B, S, H, W) -> (B, T, H, W) in [-1, 1]."""
        check_plane(image.shape[2], image.shape[3], 16)
        whole = self.coarse(F.avg_pool2d(image, 2), None)  # B w H/2 W/2
        hint = self.listen(whole.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # B 2w H/2 W/2
        details = torch.cat([self.fine(image, hint), image], dim=1)  # B w+S H W
        return torch.tanh(self.image(details.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class Pyramid(nn.Module):
    """Down to an eighth in four steps of linear attention, a trunk of full attention, and up again with skips."""

    def __init__(self, in_channels: int, width: int, trunk_channels: int, *, num_layers: int) -> None:
        super().__init__()
        channels = (width, 2 * width, 4 * width, 8 * width)
        self.first = TokenPerformer(FIRST_PATCH**2 * in_channels, channels[0])
        self.down = nn.ModuleList(TokenPerformer(PATCH**2 * a, b) for a, b in itertools.pairwise(channels))
        self.into_trunk = nn.Linear(channels[-1], trunk_channels)
        layer = nn.TransformerEncoderLayer(
            trunk_channels, NUM_HEADS, MLP_RATIO * trunk_channels, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.trunk = nn.TransformerEncoder(layer, num_layers, nn.LayerNorm(trunk_channels), enable_nested_tensor=False)
        self.up = nn.ModuleList(
            Up(below, skip)
            for below, skip in zip((trunk_channels, channels[2], channels[1]), channels[2::-1], strict=True)
        )

    def forward(self, image: Tensor, hint: Tensor | None) -> Tensor:
        """(B, S, H, W) -> (B, w, H, W); `hint` (B, 2w, H/2, W/2) is added to what is that large on the way down."""
        maps = [self.first(image, FIRST_PATCH, 1)]  # B w H W
        for number, down in enumerate(self.down):
            x = down(maps[-1], PATCH, 2)  # half as large
            maps.append(x + hint if hint is not None and number == 0 else x)
        x = self._through_trunk(maps[-1])
        for up, skip in zip(self.up, maps[2::-1], strict=True):
            x = up(x, skip)
        return x

    def _through_trunk(self, x: Tensor) -> Tensor:
        tokens = self.into_trunk(x.flatten(2).transpose(1, 2))  # B L D
        positions = position_codes(x.shape[2], x.shape[3], tokens.shape[-1]).to(tokens)
        return self.trunk(tokens + positions).transpose(1, 2).unflatten(2, x.shape[2:])


class Up(nn.Module):
    """Pixels shuffled to twice the size, joined with the skip, linear attention."""

    def __init__(self, in_channels: int, skip_channels: int) -> None:
        super().__init__()
        self.spread = nn.Linear(in_channels, 4 * skip_channels)
        self.attend = TokenPerformer(2 * skip_channels, skip_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        larger = F.pixel_shuffle(self.spread(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 2)
        return self.attend(torch.cat([larger, skip], dim=1), 1, 1)


class TokenPerformer(nn.Module):
    """Neighbourhoods as tokens, one head of Performer attention (Choromanski 2021), a small MLP.

    The softmax kernel exp(q k) is estimated by M random features, exp(w x - |x|^2 / 2) / sqrt(M), whose
    directions w are drawn once and do not learn; so attention costs L, not L^2.
    """

    directions: Tensor  # M D

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.norm_tokens, self.norm = nn.LayerNorm(in_channels), nn.LayerNorm(channels)
        self.key_query_value = nn.Linear(in_channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels))
        num_features = max(channels // 2, 1)
        directions = nn.init.orthogonal_(torch.empty(num_features, channels)) * math.sqrt(num_features)
        self.register_buffer("directions", directions)

    def forward(self, x: Tensor, patch: int, stride: int) -> Tensor:
        """(B, C, H, W) -> (B, channels, H / stride, W / stride)."""
        tokens = self.norm_tokens(neighbourhoods(x, patch, stride))
        key, query, value = self.key_query_value(tokens).chunk(3, dim=-1)  # B L D
        attended = value + self.project(self._attended(query, key, value))
        tokens = attended + self.mlp(self.norm(attended))
        return tokens.transpose(1, 2).unflatten(2, (x.shape[2] // stride, x.shape[3] // stride))

    def _attended(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """In float32: a sum of exponentials leaves the range of float16."""
        with torch.autocast(query.device.type, enabled=False):
            queries = self._features(query.float(), over=(2,))  # a factor of a query cancels, and one of all keys
            keys = self._features(key.float(), over=(1, 2))
            return linear_attention(queries, keys, value.float()).to(value.dtype)

    def _features(self, x: Tensor, over: tuple[int, ...]) -> Tensor:
        """exp(w x - |x|^2 / 2) / sqrt(M), but for the largest exponent over these axes: B L D -> B L M."""
        exponent = F.linear(x, self.directions.float()) - x.square().sum(-1, keepdim=True) / 2
        return torch.exp(exponent - exponent.amax(dim=over, keepdim=True)) / math.sqrt(len(self.directions))


def linear_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """sum_j (q_i k_j) v_j / sum_j q_i k_j for every i: (B, L, M), (B, L, M), (B, L, D) -> (B, L, D)."""
    summed = torch.einsum("blm,bld->bmd", key, value)
    norm = torch.einsum("blm,bm->bl", query, key.sum(dim=1)).unsqueeze(-1)
    return torch.einsum("blm,bmd->bld", query, summed) / norm.clamp(min=torch.finfo(norm.dtype).tiny)


def neighbourhoods(x: Tensor, patch: int, stride: int) -> Tensor:
    """Patches around every stride-th pixel, zeros outside: (B, L, patch^2 C)."""
    return F.unfold(x, patch, padding=patch // 2, stride=stride).transpose(1, 2)


def position_codes(height: int, width: int, channels: int) -> Tensor:
    """Sines and cosines of the row-major place (Vaswani 2017), not learned: (L, channels)."""
    place = torch.arange(height * width, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(torch.arange(0, channels, 2) * (-math.log(10_000.0) / channels))
    codes = torch.zeros(height * width, channels)
    codes[:, 0::2] = torch.sin(place * rate)
    codes[:, 1::2] = torch.cos(place * rate[: channels // 2])
    return codes
