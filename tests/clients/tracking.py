"""A training that MLflow tracks: `python -m monai.bundle run training --tracking mlflow`.

    python tests/clients/tracking.py [--environment DIR]

MLflow 3 wants older pandas and protobuf than our tested set has, so it comes into an environment of its own.
Trains for two epochs and asks the database beside the weights what it knows. Ends with 0 where it knows all.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from environment import CHECKOUT, needs, python_with
from hmf_networks.bundles.find import bundle_root
from hmf_networks.cli import main as hmf

NAMES = ("train.json", "networks/quickstart.json", "quickstart.json")
SHORT = [
    *("--slices_per_volume", "2", "--validation_slices", "2", "--batch_size", "2", "--val_interval", "1"),
    *("--flat_epochs", "2", "--decay_epochs", "0"),
]
TOLD = """
import sys, mlflow
mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}")
(run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
print(run.info.status, sorted(run.data.metrics))
names = {"train_loss", "val_psnr"}
sys.exit(str(missing) if (missing := names - set(run.data.metrics)) or run.info.status != "FINISHED" else 0)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", type=Path, default=Path("build/clients"))
    options = parser.parse_args()
    wanted = {line.split(">")[0] for line in needs()}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        pins = [p for p in (CHECKOUT / "constraints.txt").read_text().split("\n") if p.split("==")[0] in wanted]
        (work / "pins.txt").write_text("\n".join(pins))
        packages = [*needs(), "mlflow>=3"]
        python = python_with((options.environment / "mlflow").absolute(), packages, options=("-c", work / "pins.txt"))
        hmf(["simulate", str(work / "data"), "--subjects", "4", "--spacing", "4"])
        configs = str([str(bundle_root() / "configs" / name) for name in NAMES])
        training = [python, "-m", "monai.bundle", "run", "training", "--config_file", configs, "--tracking", "mlflow"]
        training += [
            "--bundle_root",
            bundle_root(),
            "--dataset_dir",
            work / "data",
            "--output_dir",
            work / "run",
            *SHORT,
        ]
        subprocess.run([str(word) for word in training], cwd=CHECKOUT, check=True)
        (database,) = (work / "run").rglob("*.db")
        return subprocess.run([python, "-c", TOLD, database]).returncode


if __name__ == "__main__":
    sys.exit(main())
