"""A run of a study: trained and scored by MONAI's own commands in processes of their own; what was stopped goes on.

OUT/runs/<task>/<method>/seed-<n>/   models, scores.csv, planes, log.txt, and run.json once all is there
    settings.json                    the hash of what it was begun with
    conditions/<name>/               scores.csv and planes of the same weights under a condition
OUT/runs/<task>/datalist.json        the split, one for all methods and seeds
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hmf_networks import __version__
from hmf_networks.atomic import write_whole
from hmf_networks.hashing import file_hash
from hmf_networks.studies.study import Run, Study, file_name

DONE, SETTINGS = "run.json", "settings.json"
NUM_KEPT = 2  # test subjects of which a plane is kept, to be drawn
ANOTHER = "{} is of another study, data or version; name another --output, or remove it"


class Place(NamedTuple):
    """Where things are: the bundle, the data, and the folder of the study."""

    bundle: Path
    dataset_dir: Path
    output_dir: Path

    def of(self, run: Run) -> Path:
        return self.output_dir / "runs" / file_name(run.task) / file_name(run.method) / f"seed-{run.seed}"

    def datalist(self, run: Run) -> Path:
        return self.output_dir / "runs" / file_name(run.task) / "datalist.json"


def scores_folder(folder: Path, condition: str) -> Path:
    return folder / "conditions" / file_name(condition) if condition else folder


def is_done(run: Run, study: Study, place: Place) -> bool:
    """True when it is there as the study has it.

    Raises:
        ValueError: it is there, or was begun, but of another study; nothing of it is lost.
    """
    folder = place.of(run)
    for name in (SETTINGS, DONE):
        path = folder / name
        if path.is_file() and json.loads(path.read_text("utf-8"))["settings_sha256"] != settings_hash(
            run, study, place
        ):
            raise ValueError(ANOTHER.format(folder))
    return (folder / DONE).is_file()


def settings_hash(run: Run, study: Study, place: Place) -> str:
    """Of what the run's scores follow from, but for the data, which `compare` holds to its own, and the machine."""
    files = [*configs_of(run, study, place.bundle / "configs"), place.bundle / "configs" / "evaluate.json"]
    words = [__version__, [file_hash(path) for path in files], _overrides(run, study), study.conditions]
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()


def train_and_score(run: Run, study: Study, place: Place, device: str | None = None) -> None:
    """Train, or go on, then score, under every condition.

    Raises:
        RuntimeError: a command failed; what it said is in log.txt.
    """
    folder, settings_sha256 = place.of(run), settings_hash(run, study, place)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / SETTINGS, json.dumps({"settings_sha256": settings_sha256}, indent=1) + "\n")
    models = folder / "models"
    last, trained = models / "last.pt", models / "trained"
    settings = {**_overrides(run, study), "bundle_root": str(place.bundle), "dataset_dir": str(place.dataset_dir)}
    settings |= {"output_dir": str(folder), "ckpt_dir": str(models), "datalist_path": str(place.datalist(run))}
    settings |= {} if device is None else {"device": f"$torch.device({device!r})"}
    configs = configs_of(run, study, place.bundle / "configs")
    if not trained.is_file():  # ended by patience, it would else go on for an epoch
        _command("training", configs, settings | {"resume": last.is_file()}, folder)
        trained.touch()
    is_first = run.method == next(iter(study.methods))
    scoring = {"method": run.method, "kept_planes": NUM_KEPT}
    scoring |= {} if is_first else {"rivals": {}}  # those without a network are scored once
    configs = [configs[0], place.bundle / "configs" / "evaluate.json", *configs[1:]]
    for condition, changes in {"": {}, **study.conditions}.items():
        where = {"output_dir": str(scores_folder(folder, condition))}
        _command("evaluating", configs, settings | scoring | where | changes, folder)
    about = json.loads((models / "model.json").read_text(encoding="utf-8"))
    told = {**run._asdict(), "version": __version__, "settings_sha256": settings_sha256}
    told |= {"weights_sha256": about["sha256"][0], "network": about.get("network")}
    write_whole(folder / DONE, json.dumps(told, indent=1) + "\n")
    last.unlink(missing_ok=True)  # three times the weights, of no more use


def configs_of(run: Run, study: Study, folder: Path) -> list[Path]:
    """Files in `folder`, each laid over those before it."""
    names = ["train.json", *study.configs, *study.tasks[run.task], *study.methods[run.method].configs]
    return [folder / name for name in names]


def _overrides(run: Run, study: Study) -> dict[str, Any]:
    return {**study.budget, **study.methods[run.method].overrides, "seed": run.seed}


def _command(run_id: str, configs: list[Path], settings: Mapping[str, Any], folder: Path) -> None:
    """`monai.bundle run`, the settings as a last config: on a command line names and null would be read otherwise."""
    last = folder / f"{run_id}.json"
    write_whole(last, json.dumps(settings, indent=1) + "\n")
    files = str([str(path) for path in (*configs, last)])
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", files]
    with (folder / "log.txt").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            status = process.wait()
        finally:
            process.terminate()  # stopped ourselves, two would write one folder
    if status:
        lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
        raise RuntimeError(f"{run_id} ended with {status}: {lines[-1]} ({folder / 'log.txt'})")
