"""The whole network against its convolution floor: the same network with the scans and the INRB taken out.

    python benchmarks/network.py [--width 64] [--size 256 256] [--threads 2] [--precision fp32]

Forward of one slice, and one training step of generator and discriminator. Wall time, the least of several
runs; freed memory is kept, as in a training of the bundle. What counts are the ratios, all of this one run.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from hmf_networks.engines.memory import keep_freed_memory
from hmf_networks.nets import HMFMambaINR
from hmf_networks.reports.cost import scans_left_out
from machine import report
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn


def without_inrb(network: HMFMambaINR, image: Tensor) -> Tensor:
    """A channel of the features, at full size by repetition, where the INRB would decode."""
    return F.interpolate(network.features(image)[:, :1], scale_factor=float(network.stride), mode="nearest")


def training_step(network: nn.Module, judge: nn.Module, predict: Callable[[Tensor], Tensor], image: Tensor) -> None:
    """Forward and backward of discriminator and generator, as the trainer does them."""
    truth = image[:, :1]
    fake = predict(image)
    verdicts = judge(torch.cat([image, truth], 1))[-1], judge(torch.cat([image, fake.detach()], 1))[-1]
    ((verdicts[0] - 1).square().mean() + verdicts[1].square().mean()).backward()
    judge.requires_grad_(False)
    verdict = judge(torch.cat([image, fake], 1))[-1]
    (100 * F.l1_loss(fake, truth) + (verdict - 1).square().mean()).backward()
    judge.requires_grad_(True)
    network.zero_grad(set_to_none=True)
    judge.zero_grad(set_to_none=True)


def least_seconds(work: Callable[[], object], *, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("H", "W"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    network = HMFMambaINR(2, 2, 1, width=options.width).to(memory_format=torch.channels_last)
    judge = PatchDiscriminator(spatial_dims=2, channels=64, in_channels=3, num_layers_d=3)
    image = torch.rand(1, 2, *options.size) * 2 - 1

    def floor(image: Tensor) -> Tensor:
        return without_inrb(network, image)

    seconds = {}
    with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
        with torch.inference_mode():
            network.eval()
            seconds["forward"] = least_seconds(lambda: network(image), repeats=options.repeats)
            with scans_left_out():
                seconds["forward_floor"] = least_seconds(lambda: floor(image), repeats=options.repeats)
        network.train()
        seconds["step"] = least_seconds(lambda: training_step(network, judge, network, image), repeats=options.repeats)
        with scans_left_out():
            seconds["step_floor"] = least_seconds(
                lambda: training_step(network, judge, floor, image), repeats=options.repeats
            )
    rows = {
        way: {
            "s": seconds[way],
            "floor s": seconds[f"{way}_floor"],
            "times the floor": seconds[way] / seconds[f"{way}_floor"],
        }
        for way in ("forward", "step")
    }
    title = f"width {options.width}, {options.size[0]} x {options.size[1]}, {options.precision}"
    report(title, ["s", "floor s", "times the floor"], rows, options.json)


if __name__ == "__main__":
    main()
