"""`hmf synthesize`: the bundle's inference, set up from what was asked and from what the weights are for."""

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hmf_networks.engines.bundle_run import check_key, keys_of, told_to_users
from hmf_networks.engines.device import choose_device
from hmf_networks.engines.needed import NO_CONFIG, needed_by
from hmf_networks.naming import CONTRASTS, LOOSE, Record, bare_name, check_contrasts
from monai.bundle import ConfigWorkflow

TALKATIVE = ("ignite", "monai", "monai.bundle.workflows", "hmf_networks.engines.subjects.SubjectEvaluator")


def synthesize(
    bundle_root: Path,
    weights: Path | None,
    records: Path | Record,
    output_dir: Path,
    target: str | None = None,
    *,
    device: str = "auto",
    config_files: Sequence[Path] = (),
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Run `inference.json` of the bundle, with the config files and then the overrides laid over it.

    Args:
        bundle_root: folder with `configs/inference.json`.
        weights: by default `models/model.pt` of the bundle. The model.json beside them says which network,
            sources, targets and pixel size they need.
        records: folder, datalist or file of subjects; or one record of loose files, see `loose_record`.
        output_dir: where the outputs go.
        target: contrast to make; None for what is missing, or for all that weights for a fixed task make.
        device: `choose_device` knows the names.
        config_files: further config files.
        overrides: keys of the configs; paths as Path, as a text may be an expression.

    Raises:
        SubjectsFailed: some subjects could not be done.
        ValueError, OSError: nothing could be.
    """
    check_contrasts([] if target is None else [target])
    files = [bundle_root / "configs" / "inference.json", *config_files]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(NO_CONFIG.format(file))
    weights = weights or bundle_root / "models" / "model.pt"
    overrides = {**needed_by(weights, target), **(overrides or {})}
    for key in overrides:
        check_key(key, keys_of(files))
    settings: dict[str, Any] = {
        "bundle_root": bundle_root,
        "ckpt_path": weights.absolute(),
        "output_dir": output_dir.expanduser().absolute(),
        "device": choose_device(device),
        **overrides,
    }
    if isinstance(records, Path):
        settings["dataset_dir"] = records.absolute()
    else:  # a tuple: no text in it is taken for an expression
        settings["records"] = (_loose_task(records, settings),)
    for name in TALKATIVE:  # errors are raised as well, and said once
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _run(files, settings)


def _run(files: Sequence[Path], settings: Mapping[str, Any]) -> None:
    try:
        workflow = ConfigWorkflow(
            config_file=[str(file) for file in files],
            meta_file=str(files[0].with_name("metadata.json")),
            logging_file=False,
            workflow_type="inference",
            run_id="inference",
            **settings,
        )
        workflow.initialize()
        workflow.run()
    except Exception as error:
        cause = told_to_users(error)
        if cause is None or cause is error:
            raise
        raise cause from None


def loose_record(paths: Mapping[str, Path], output: Path) -> Record:
    """A subject of files named one by one, contrast -> file; its output has the name that was asked for.

    Raises:
        FileNotFoundError: one of them is not there.
        ValueError: that is no name of a NIfTI file, or one file is given as two contrasts.
    """
    if not output.name.lower().endswith((".nii", ".nii.gz")):
        raise ValueError(f"{output}: with single files, name the output file too, e.g. t2.nii.gz")
    name = {"patient": bare_name(output.name).lstrip(".") or "loose", "session": ""}
    for contrast, path in paths.items():
        if not path.exists():
            raise FileNotFoundError(f"--{contrast} {path}: no such file")
    for (one, path), (other, same) in itertools.combinations(paths.items(), 2):
        if path.samefile(same):
            raise ValueError(f"--{one} and --{other} are one file, {path}; give each contrast its own")
    return {**name, "layout": LOOSE, "output": output.name} | {key: str(path) for key, path in paths.items()}


def _loose_task(record: Record, settings: Mapping[str, Any]) -> Record:
    """The record, with what is to be made of it."""
    target = settings.get("target")
    if target is None:
        raise ValueError(f"{record['output']} is one file: say what it is to hold, e.g. --target t2")
    if target in record:
        raise ValueError(f"--{target} is what is to be made; leave it out, or choose another --target")
    sources, any_subset = settings.get("sources", CONTRASTS), settings.get("any_subset", True)
    missing = [] if any_subset else [f"--{name}" for name in sources if name not in record]
    if missing:
        raise ValueError(f"the weights work from {', '.join(sources)}: give {', '.join(missing)} too")
    return record | {"target": target}
