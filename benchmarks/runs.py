"""Runs of `hmf synthesize` as a user starts them, and what they leave: tools of reliability.py."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from hmf_networks.engines.weights import BestModel
from hmf_networks.naming import CONTRASTS
from hmf_networks.nets import HMFMambaINR
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.read import examine

ROOT = Path(__file__).resolve().parent.parent
RANGE = 1000.0  # of written volumes


def small_weights(
    folder: Path,
    *,
    sources: Sequence[str] = ("t1", "flair"),
    any_to_any: bool = False,
    pixel_mm: float = 4.0,
    plane_size: Sequence[int] = (48, 64),
    width: int = 4,
) -> Path:
    """A small network as it comes from its initialisation, with the model.json of a training."""
    torch.manual_seed(0)
    sources = CONTRASTS if any_to_any else sources
    targets = CONTRASTS if any_to_any else ("t2",)
    network = HMFMambaINR(
        in_channels=len(sources) * (1 + any_to_any),
        out_channels=len(targets),
        num_masks=len(sources) * any_to_any,
        width=width,
        state_size=2,
        num_residual_blocks=1,
        inr_hidden_channels=8,
        append_foreground=True,
    )
    task = {"sources": list(sources), "targets": list(targets), "any_subset": any_to_any}
    task |= {"pixel_mm": pixel_mm, "foreground_box": False}
    hints = {"plane": "axial", "plane_size": list(plane_size)}
    BestModel(str(folder / "model.pt"), network, task=task, hints=hints).save()
    return folder / "model.pt"


def command(source: Path | str, output: Path, weights: Path, *more: str, target: str | None = "t2") -> list[str]:
    arguments = ["synthesize", str(source), str(output), "--weights", str(weights), *more]
    arguments += ["--target", target] if target else []
    return [sys.executable, "-m", "hmf_networks", *arguments]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(words: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=600, **options)


def begun(words: list[str], output: Path, pattern: str) -> subprocess.Popen[bytes]:
    """A run that has just made the first file of that pattern."""
    process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while process.poll() is None and not any(output.glob(pattern)):
        time.sleep(0.001)
    return process


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Lines of standard error that no progress bar drew."""
    lines = done.stderr.replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and "it/s]" not in line and "%|" not in line]


def volumes(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*_synth*.nii.gz"))


def litter(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name != ".bidsignore"]


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in volumes(folder)}


def broken(folder: Path) -> list[Path]:
    """Final files that are not whole."""
    bad = []
    for path in volumes(folder):
        try:
            examine(path)
        except VolumeError:
            bad.append(path)
    for path in folder.rglob("*.json"):
        try:
            json.loads(path.read_text())
        except ValueError:
            bad.append(path)
    return bad


def last(done: subprocess.CompletedProcess[str]) -> str:
    lines = said(done)
    return f"'{lines[-1][:150]}'" if lines else "nothing said"


def largest_difference(folder: Path, other: Path) -> float:
    """Over all volumes of `folder`, as a share of the range."""
    differences = [
        np.abs(examine(path).values - examine(other / path.relative_to(folder)).values).max()
        for path in volumes(folder)
    ]
    return float(max(differences) / RANGE)


@contextlib.contextmanager
def full_disk(folder: Path, options: str = "size=300k") -> Iterator[Path | None]:
    """A small tmpfs, where this user may mount one."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    try:
        yield folder if mounted.returncode == 0 else None
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)
