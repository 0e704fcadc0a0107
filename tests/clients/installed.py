"""The packed folder, its zip and the wheel, each where no checkout is: training and inference, elsewhere.

    python tests/clients/installed.py [--environment DIR]

Makes an environment with the packages that the bundle needs, but not ours, in DIR (once), then one more with
our wheel, and runs a short training and one inference in each. Ends with 0 where all of them work.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from environment import CHECKOUT, needs, python_with
from hmf_networks.bundles.find import bundle_root
from hmf_networks.bundles.pack import pack
from hmf_networks.cli import main as hmf

NOT_SOURCE = shutil.ignore_patterns(".git", ".venv", "build", "demo", "dist")
SHORT = [
    *("--slices_per_volume", "2", "--validation_slices", "2", "--batch_size", "2"),
    *("--flat_epochs", "1", "--decay_epochs", "0"),
]


def run(command: list[object], folder: Path) -> bool:
    """Whether it ends well, from an empty folder and without our checkout on the path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in command], cwd=folder, env=environment, capture_output=True)
    if done.returncode:
        print(done.stderr.decode()[-2000:])
    return done.returncode == 0


def bundle_works(name: str, python: Path, root: Path, data: Path, work: Path) -> Iterator[tuple[str, bool]]:
    elsewhere = work / f"{name}_elsewhere"
    elsewhere.mkdir()
    module = [python, "-m", "monai.bundle", "run"]
    names = ("train.json", "networks/quickstart.json", "quickstart.json")
    configs = str([str(root / "configs" / name) for name in names])
    training = [*module, "training", "--config_file", configs, "--bundle_root", root, *SHORT]
    training += ["--dataset_dir", data, "--output_dir", elsewhere / "run"]
    weights = elsewhere / "run" / "models" / "model.pt"
    yield f"{name}: training", run(training, elsewhere) and weights.is_file()
    inference = [*module, "inference", "--config_file", root / "configs" / "inference.json"]
    inference += ["--bundle_root", root, "--target", "pd", "--overwrite", "True"]
    inference += ["--dataset_dir", data, "--output_dir", elsewhere / "out"]
    made = run(inference, elsewhere)
    yield f"{name}: inference", made and any((elsewhere / "out").rglob("*_pd_synth.nii.gz"))


def checks(environment: Path, work: Path) -> Iterator[tuple[str, bool]]:
    hmf(["simulate", str(work / "data"), "--subjects", "4", "--spacing", "4"])
    packed = pack(work / "packed", bundle_root())
    python = python_with(environment / "without_us", needs())
    yield from bundle_works("folder", python, packed.folder, work / "data", work)
    with zipfile.ZipFile(packed.archive) as archive:
        archive.extractall(work / "unzipped")
    yield from bundle_works("zip", python, work / "unzipped" / packed.archive.stem, work / "data", work)

    source = work / "source"
    shutil.copytree(CHECKOUT, source, ignore=NOT_SOURCE)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--wheel-dir", work / "wheel", source], check=True)
    (wheel,) = (work / "wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    of_bundle = {name.split("/")[2] for name in names if name.startswith("hmf_networks/bundle/")}
    yield "wheel: carries the bundle and nothing else", of_bundle == {"LICENSE", "configs", "docs", "models"}
    python = python_with(environment / "with_wheel", needs())
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", wheel], check=True)
    root = next((environment / "with_wheel").glob("lib/python*/site-packages/hmf_networks/bundle"))
    yield from bundle_works("wheel", python, root, work / "data", work)
    command = [python.parent / "hmf", "synthesize", work / "data", work / "by_command", "--target", "pd"]
    yield "wheel: hmf synthesize", run(command, work / "wheel")
    yield "wheel: hmf pack", run([python.parent / "hmf", "pack"], work / "wheel")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", type=Path, default=Path("build/clients"))
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, is_well in checks(options.environment.absolute(), Path(folder)):
            print(f"{'ok    ' if is_well else 'FAILED'} {name}", flush=True)
            failed += not is_well
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
