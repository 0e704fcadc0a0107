"""A run of a study: trained and scored by MONAI's own commands in processes of their own; what was stopped goes on.

OUT/runs/<task>/<method>/seed-<n>/   models, scores.csv, planes, log.txt, and run.json once all is there
    conditions/<name>/               scores.csv and planes of the same weights under a condition
OUT/runs/<task>/datalist.json        the split, one for all methods and seeds
"""

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hmf_networks import __version__
from hmf_networks.atomic import write_whole
from hmf_networks.hashing import file_hash
from hmf_networks.studies.study import Run, Study

DONE = "run.json"
NUM_KEPT = 2  # test subjects of which a plane is kept, to be drawn


class Place(NamedTuple):
    """Where things are: the bundle, the data, and the folder of the study."""

    bundle: Path
    dataset_dir: Path
    output_dir: Path

    def of(self, run: Run) -> Path:
        return self.output_dir / "runs" / file_name(run.task) / file_name(run.method) / f"seed-{run.seed}"

    def datalist(self, run: Run) -> Path:
        return self.output_dir / "runs" / file_name(run.task) / "datalist.json"


def file_name(words: str) -> str:
    """A name for people as a name of a folder: "w/o RHMB" -> "w_o_RHMB"."""
    return re.sub(r"[^\w.+-]+", "_", words.replace("->", "_to_"))


def scores_folder(folder: Path, condition: str) -> Path:
    return folder / "conditions" / file_name(condition) if condition else folder


def is_done(run: Run, study: Study, place: Place) -> bool:
    """True when it is there as the study has it.

    Raises:
        ValueError: it is there, but of another study; nothing of it is lost.
    """
    path = place.of(run) / DONE
    if not path.is_file():
        return False
    if json.loads(path.read_text(encoding="utf-8"))["settings_sha256"] != settings_hash(run, study, place):
        raise ValueError(f"{path.parent} is of another study or version; name another --output, or remove it")
    return True


def settings_hash(run: Run, study: Study, place: Place) -> str:
    """Of everything that the run's scores follow from, but for the data and the machine."""
    files = [file_hash(path) for path in configs_of(run, study, place.bundle / "configs")]
    words = [__version__, files, _overrides(run, study), study.data, study.conditions]
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()


def train_and_score(run: Run, study: Study, place: Place, device: str | None = None) -> None:
    """Train, or go on, then score.

    Raises:
        RuntimeError: one of the two commands failed; what it said is in log.txt.
    """
    folder = place.of(run)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    configs, overrides = configs_of(run, study, place.bundle / "configs"), _overrides(run, study)
    overrides |= {"bundle_root": str(place.bundle), "dataset_dir": str(place.dataset_dir), "output_dir": str(folder)}
    overrides |= {"datalist_path": str(place.datalist(run))}
    if device is not None:
        overrides["device"] = f"$torch.device('{device}')"
    models = folder / "models"
    _command(
        "training", configs, overrides | {"ckpt_dir": str(models), "resume": (models / "last.pt").is_file()}, folder
    )
    first = run.method == next(iter(study.methods))
    scoring = {"method": run.method, "kept_planes": NUM_KEPT}
    scoring |= {} if first else {"rivals": {}}  # those without a network are scored once
    evaluate = place.bundle / "configs" / "evaluate.json"
    configs = [configs[0], evaluate, *configs[1:]]
    for condition, changes in {"": {}, **study.conditions}.items():
        where = {"output_dir": str(scores_folder(folder, condition))}
        _command("evaluating", configs, overrides | scoring | where | changes, folder)
    (models / "last.pt").unlink(missing_ok=True)  # three times the weights, of no more use
    about = json.loads((models / "model.json").read_text(encoding="utf-8"))
    told = {"task": run.task, "method": run.method, "seed": run.seed, "version": __version__}
    told |= {"settings_sha256": settings_hash(run, study, place), "weights_sha256": about["sha256"][0]}
    told |= {"network": about.get("network"), "seconds_of_last_start": round(time.monotonic() - started, 1)}
    write_whole(folder / DONE, json.dumps(told, indent=1) + "\n")


def configs_of(run: Run, study: Study, folder: Path) -> list[Path]:
    """Files in `folder`, each laid over those before it."""
    names = ["train.json", *study.configs, *study.tasks[run.task], *study.methods[run.method].configs]
    return [folder / name for name in names]


def _overrides(run: Run, study: Study) -> dict[str, Any]:
    return {**study.budget, **study.methods[run.method].overrides, "seed": run.seed}


def _command(run_id: str, configs: list[Path], overrides: Mapping[str, Any], folder: Path) -> None:
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str([str(p) for p in configs])]
    for key, value in overrides.items():
        command += [f"--{key}", value if isinstance(value, str) else repr(value)]
    with (folder / "log.txt").open("ab") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
        raise RuntimeError(f"{run_id} ended with {done.returncode}: {lines[-1]} ({folder / 'log.txt'})")
