"""Can the network hold four slices? L1 alone, evaluation mode, the same slices: PSNR should pass 35 dB.

python benchmarks/overfit.py /data/patients --overlays bundle/configs/networks/quickstart.json
"""

import argparse
import time

import torch
from hmf_networks.engines.handlers import flat_then_linear
from hmf_networks.metrics import psnr, to_unit
from monai.bundle import ConfigParser
from monai.data import DataLoader
from torch import nn

SLICES = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset_dir")
    parser.add_argument("--overlays", nargs="*", default=[], help="configs laid over train.json")
    parser.add_argument("--plane_size", type=int, nargs=2, metavar=("H", "W"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--learning_rate", type=float, default=0.002)
    parser.add_argument("--target_db", type=float, default=35.0)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    config = ConfigParser()
    config.read_config(["bundle/configs/train.json", *arguments.overlays])
    config["dataset_dir"] = arguments.dataset_dir
    config["parts"] = {
        "_target_": "hmf_networks.data.folder.find_subjects",
        "root": "@dataset_dir",
        "sources": "@sources",
        "target": "@target",
    }
    config["train#dataset#data"] = "$@parts[:1]"
    config["slices_per_volume"] = SLICES
    if arguments.plane_size is not None:
        config["plane_size"] = arguments.plane_size
    batch = next(iter(DataLoader(config.get_parsed_content("train#dataset"), batch_size=SLICES)))
    image, truth = (batch[key].as_tensor().to(memory_format=torch.channels_last) for key in ("image", "label"))
    network = config.get_parsed_content("network_def").to(memory_format=torch.channels_last)
    held = overfit(network, image, truth, arguments.steps, arguments.learning_rate, arguments.target_db)
    print(f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters: {held:.2f} dB")


def overfit(
    network: nn.Module, image: torch.Tensor, truth: torch.Tensor, steps: int, rate: float, target_db: float
) -> float:
    """Train on one batch until `target_db` is reached or the steps are used up; PSNR in evaluation mode."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=(0.5, 0.999))
    scheduler = flat_then_linear(optimizer, flat_epochs=steps // 2, decay_epochs=steps - steps // 2)
    reached, begin = 0.0, time.monotonic()
    for step in range(1, steps + 1):
        loss = nn.functional.l1_loss(network.train()(image), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step % 20 == 0 or step == steps:
            with torch.no_grad():
                reached = psnr(to_unit(network.eval()(image)), to_unit(truth))
            print(f"step {step}, {time.monotonic() - begin:.0f} s: L1 {loss.item():.4f}, {reached:.2f} dB", flush=True)
            if reached > target_db:
                break
    return reached


if __name__ == "__main__":
    main()
