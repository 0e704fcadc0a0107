import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two busy cores make OpenMP loops collapse; one thread is steady and repeats to the bit."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def write_nifti(tmp_path: Path) -> Callable[..., str]:
    """Puts values and affine as a NIfTI-1 file of float32 into tmp_path and returns its path."""

    def write(name: str, values: np.ndarray, affine: np.ndarray | None = None) -> str:
        path = tmp_path / name
        image = nibabel.Nifti1Image(values.astype(np.float32), np.eye(4) if affine is None else affine)
        image.to_filename(path)
        return str(path)

    return write


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four simulated patients of 4 mm voxels in the BraTS layout."""
    from hmf_networks.data.phantom import simulate_subjects

    folder = tmp_path_factory.mktemp("patients")
    simulate_subjects(folder, num_subjects=4, seed=0, spacing_mm=4.0)
    return folder


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model.pt with its model.json: a small network from t1 and flair to t2, as it was initialised."""
    task = {"sources": ["t1", "flair"], "targets": ["t2"], "any_subset": False}
    return save_weights(tmp_path_factory.mktemp("weights") / "model.pt", task)


@pytest.fixture(scope="session")
def any_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of a small network from whatever contrasts there are to any."""
    from hmf_networks.naming import CONTRASTS

    task = {"sources": list(CONTRASTS), "targets": list(CONTRASTS), "any_subset": True}
    return save_weights(tmp_path_factory.mktemp("weights") / "model.pt", task)


def save_weights(path: Path, task: dict[str, Any]) -> Path:
    from hmf_networks.engines.weights import BestModel
    from hmf_networks.nets import HMFMambaINR

    torch.manual_seed(0)
    num_sources = len(task["sources"])
    network = HMFMambaINR(
        in_channels=num_sources * (1 + task["any_subset"]),
        out_channels=len(task["targets"]),
        num_masks=num_sources * task["any_subset"],
        width=4,
        state_size=2,
        num_residual_blocks=1,
        inr_hidden_channels=8,
        append_foreground=True,
    )
    task = {**task, "pixel_mm": 4.0, "foreground_box": False}
    BestModel(str(path), network, task=task, hints={"plane": "axial", "plane_size": [48, 64]}).save()
    return path
