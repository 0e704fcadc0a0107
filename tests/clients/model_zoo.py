"""The packed folder before the checks of Project-MONAI/model-zoo: metadata, shapes, TorchScript, code style.

    python tests/clients/model_zoo.py [--environment DIR] [--schema FILE]

What its `ci/verify_bundle.py` and `runtests.sh --black --isort --flake8` ask, asked of MONAI's own commands
and of the same tools with the zoo's settings, in an environment without our checkout. The metadata schema
is published at the address in metadata.json; where it cannot be fetched, ours stands for it
(`metadata_schema.json`), or `--schema`. Ends with 0 where all is as it should be.
"""

import argparse
import configparser
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from environment import needs, python_with
from hmf_networks.bundles.find import bundle_root
from hmf_networks.bundles.pack import LARGEST_MB, NAME, pack
from hmf_networks.cli import main as hmf

CHECKERS = [f"flake8{name}" for name in ("", "-bugbear", "-comprehensions")] + ["pep8-naming", "black", "isort"]
FLAKE8 = {  # setup.cfg of the zoo
    "select": "B,C,E,F,N,P,T4,W,B9",
    "max_line_length": "120",
    "ignore": "E203,E501,E741,W503,W504,C408,N812,B023",
    "per_file_ignores": "__init__.py: F401, __main__.py: F401",
}
ISORT = {"known_first_party": "models", "profile": "black", "line_length": "120"}
BLACK = '[tool.black]\nline-length = 120\ntarget-version = ["py37", "py38", "py39"]\n'  # its pyproject.toml
PROPERTIES = """
import sys
from monai.bundle import ConfigWorkflow
root, kind, data, out = sys.argv[1:]
workflow = ConfigWorkflow(
    config_file=f"{root}/configs/{'inference' if kind == 'infer' else 'train'}.json", workflow_type=kind,
    meta_file=f"{root}/configs/metadata.json", logging_file=f"{root}/configs/logging.conf",
    bundle_root=root, dataset_dir=data, output_dir=out)
workflow.initialize()
sys.exit(str(workflow.check_properties() or "") or 0)
"""
SCRIPTED = """
import sys, torch
from monai.bundle import ConfigParser
root, script = sys.argv[1:]
parser = ConfigParser()
parser.read_config(f"{root}/configs/inference.json")
parser["bundle_root"] = root
network = parser.get_parsed_content("network_def").eval()
network.load_state_dict(torch.load(f"{root}/models/model.pt"))
scripted = torch.jit.load(script).eval()
with torch.no_grad():
    for size in ((64, 64), (96, 80)):
        image = torch.rand(1, 10, *size) * 2 - 1
        image[:, 5:] = 1
        torch.testing.assert_close(scripted(image), network(image), rtol=1e-3, atol=1e-4)
"""


def zoo_with(folder: Path, zoo: Path) -> Path:
    """A zoo that holds our bundle alone, and its settings; the bundle in it."""
    settings = configparser.ConfigParser()
    settings.read_dict({"flake8": FLAKE8, "isort": ISORT})
    (zoo / "models").mkdir(parents=True)
    with (zoo / "setup.cfg").open("w") as file:
        settings.write(file)
    (zoo / "pyproject.toml").write_text(BLACK)
    return Path(shutil.copytree(folder, zoo / "models" / NAME))


def run(command: list[object], folder: Path, bundle: Path | None = None) -> bool:
    """Whether it ends well; with the bundle first on the path, as the zoo has it."""
    environment = {**os.environ, "PYTHONPATH": str(bundle or "")}
    done = subprocess.run([str(word) for word in command], cwd=folder, env=environment, capture_output=True)
    if done.returncode:
        print((done.stdout + done.stderr).decode()[-3000:])
    return done.returncode == 0


def checks(environment: Path, schema: Path, work: Path) -> Iterator[tuple[str, bool]]:
    packed = pack(work / "packed", bundle_root())
    zoo = work / "zoo"
    bundle = zoo_with(packed.folder, zoo)
    hmf(["simulate", str(work / "data"), "--subjects", "10", "--spacing", "4"])
    python = python_with(environment / "zoo", [*needs(), "jsonschema", "onnx", "onnxscript"])
    checker = python_with(environment / "checkers", CHECKERS)

    yield f"no file over {LARGEST_MB} MB", packed.large == []
    yield "no script of the zoo's name for its own", not (bundle / "scripts").exists()
    command = [python, "-m", "monai.bundle"]
    meta, config = (["--meta_file", bundle / "configs" / "metadata.json"], bundle / "configs" / "inference.json")
    shutil.copy(schema, work / "schema.json")
    checked = [*command, "verify_metadata", *meta, "--filepath", work / "schema.json"]
    yield f"metadata, by {schema.name}", run(checked, zoo, bundle)
    of_network = [*meta, "--config_file", config, "--bundle_root", bundle]
    shapes = [*command, "verify_net_in_out", "network_def", *of_network]
    yield "verify_net_in_out", run(shapes, zoo, bundle)
    yield "verify_net_in_out, n = 5", run([*shapes, "--n", "5"], zoo, bundle)
    for kind in ("infer", "train"):
        words = [python, "-c", PROPERTIES, bundle, kind, work / "data", work / kind]
        yield f"properties of {kind}", run(words, zoo, bundle)
    weights = ["--ckpt_file", bundle / "models" / "model.pt"]
    script = bundle / "models" / "verify_model.ts"
    exported = [*command, "ckpt_export", "network_def", script, *weights, *of_network]
    yield "ckpt_export", run(exported, zoo, bundle)
    yield "the script gives the network's numbers", run([python, "-c", SCRIPTED, bundle, script], zoo, bundle)
    onnx = [*command, "onnx_export", "network_def", work / "model.onnx", *weights, *of_network]
    yield "onnx_export", run([*onnx, "--input_shape", "[1,10,64,64]"], zoo, bundle)

    code = [checker, "-m"]
    yield "isort", run([*code, "isort", "--check", zoo], zoo)
    yield "black", run([*code, "black", "--skip-magic-trailing-comma", "--check", zoo], zoo)
    yield "flake8", run([*code, "flake8", zoo, "--count"], zoo)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", type=Path, default=Path("build/clients"))
    parser.add_argument("--schema", type=Path, default=Path(__file__).with_name("metadata_schema.json"))
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, is_well in checks(options.environment.absolute(), options.schema, Path(folder).resolve()):
            print(f"{'ok    ' if is_well else 'FAILED'} {name}", flush=True)
            failed += not is_well
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
