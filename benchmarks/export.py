"""Export to TorchScript, ONNX and OpenVINO: how long it takes, how near the files come, how fast they run.

    python benchmarks/export.py [--network bundle/configs/networks/quickstart.json] [--threads 1]

The files are made from a plane of 256 x 256, as `hmf export` makes them.
Differences are the largest of an image in [-1, 1]. Times are of one plane of 256 x 256, the least of several
runs, against the network as it is in the same run.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from hmf_networks.engines.export import FORMATS
from hmf_networks.nets import HMFMambaINR
from machine import report
from network import least_seconds
from torch import Tensor, nn

SIZES = {"256 x 256": (1, 2, 256, 256), "2 of 192 x 224": (2, 2, 192, 224)}


def network_of(path: Path | None) -> HMFMambaINR:
    """The default network or a variant in `bundle/configs/networks`, normalised as training leaves it."""
    changes = json.loads(path.read_text()) if path else {}
    options = {key.removeprefix("network_def#"): value for key, value in changes.items() if "#" in key}
    torch.manual_seed(0)
    network = HMFMambaINR(2, 2, 1, **options)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average of all planes it sees, here one
    with torch.no_grad():
        network(plane(SIZES["256 x 256"]))
    return network.eval()


def plane(size: tuple[int, ...]) -> Tensor:
    return 2 * torch.rand(size) - 1


def measure(network: nn.Module, kind: str, repeats: int) -> dict[str, float]:
    made = FORMATS[kind]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{made.suffixes[-1]}"
        start = time.perf_counter()
        made.write(network, path)
        row = {"s to export": time.perf_counter() - start}
        files = Path(folder).iterdir()  # weights may lie beside the graph
        row["MB"] = sum(file.stat().st_size for file in files) / 1e6
        exported = made.open(path)
    for name, size in SIZES.items():
        image = plane(size)
        row[f"difference, {name}"] = (exported(image) - network(image)).abs().max().item()
    image = plane(SIZES["256 x 256"])
    row["s"] = least_seconds(lambda: exported(image), repeats=repeats)
    row["times eager"] = row["s"] / least_seconds(lambda: network(image), repeats=repeats)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", type=Path, help="differences from the default network")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    network = network_of(options.network)
    with torch.inference_mode():
        rows = {kind: measure(network, kind, options.repeats) for kind in FORMATS}
    title = f"export, {options.network.stem if options.network else 'default'} network"
    report(title, list(rows["onnx"]), rows, options.json)


if __name__ == "__main__":
    main()
