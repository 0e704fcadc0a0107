"""How far bfloat16 moves what a trained network writes: percentiles of the difference to float32.

    python benchmarks/precision.py DIR --ckpt_path model.pt --overlays bundle/configs/networks/quickstart.json

DIR is a folder of subjects. In percent of the range of the output, where there is signal.
"""

import argparse
from pathlib import Path

import torch
from machine import report
from monai.bundle import ConfigParser

CONFIG = Path(__file__).parent.parent / "bundle" / "configs" / "inference.json"
PERCENTILES = (50.0, 99.0, 99.9, 100.0)
RANGE = 2.0  # the network answers in [-1, 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset_dir")
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--overlays", nargs="*", default=[], help="configs laid over inference.json")
    parser.add_argument("--pixel_mm", type=float, default=1.0)
    parser.add_argument("--plane_size", type=int, nargs=2, default=(160, 192), metavar=("H", "W"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = ConfigParser()
    config.read_config([str(CONFIG), *options.overlays])
    settings = {name: getattr(options, name) for name in ("dataset_dir", "ckpt_path", "pixel_mm")}
    config.update({**settings, "plane_size": list(options.plane_size), "inferer#progress": False})
    network = config.get_parsed_content("handlers#0").network.eval()
    network.load_state_dict(torch.load(options.ckpt_path, map_location="cpu", weights_only=True))
    preprocess = config.get_parsed_content("preprocessing")
    inferers = {}
    for precision in ("fp32", "bf16"):
        config["precision"] = precision
        inferers[precision] = config.get_parsed_content("inferer", instantiate=True, lazy=False)
    rows = {}
    records = {record["patient"] + record["session"]: record for record in config.get_parsed_content("records")}
    for record in records.values():  # one of each subject: all targets are compared
        image = preprocess(record)["image"].unsqueeze(0)
        with torch.inference_mode():
            exact, fast = (inferer(image, network).as_tensor() for inferer in inferers.values())
        signal = (image > -1).any(dim=1, keepdim=True).as_tensor().expand_as(exact)
        apart = 100 / RANGE * (exact - fast).abs()[signal]
        row = {
            f"{percentile:g}th": float(apart.kthvalue(max(1, round(len(apart) * percentile / 100))).values)
            for percentile in PERCENTILES
        }
        rows[f"{record['patient']} {record['session']}".strip()] = row
    columns = [f"{percentile:g}th" for percentile in PERCENTILES]
    report("percent of the range between float32 and bfloat16, by percentile", columns, rows, options.json)


if __name__ == "__main__":
    main()
