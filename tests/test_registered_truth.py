"""`benchmarks/registered_truth.py`: a T2 moved by a known way is found and brought back. Needs ITK."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hmf_networks.data.phantom import simulate_subject
from hmf_networks.nifti.read import read_volume
from scipy import ndimage
from scipy.spatial.transform import Rotation

pytestmark = [
    pytest.mark.slow,  # ITK takes ten seconds to load
    pytest.mark.skipif(importlib.util.find_spec("itk") is None, reason="needs itk, extra `prepare`"),
]
SPACING_MM = 2.0
SHIFT_MM, DEGREES = np.array([1.0, -0.8, 0.77]), 1.0  # 1.5 mm


@pytest.fixture(scope="module")
def registered_truth() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "registered_truth.py"
    spec = importlib.util.spec_from_file_location("registered_truth", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    subject = simulate_subject(3, 1, spacing_mm=SPACING_MM, contrasts=["t1", "t2"])
    return {name: image.astype(np.float32) for name, image in subject.images.items()}


@pytest.fixture(scope="module")
def affine(images) -> np.ndarray:
    """Left, back, up, as scanners write it, and a little oblique."""
    matrix = np.eye(4)
    turn = Rotation.from_euler("xyz", [6, -3, 4], degrees=True).as_matrix()
    matrix[:3, :3] = turn @ np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM])
    matrix[:3, 3] = [5.0, -3.0, 11.0] - matrix[:3, :3] @ (np.array(images["t1"].shape) / 2)
    return matrix


@pytest.fixture(scope="module")
def way(images, affine) -> np.ndarray:
    """From where a point was to where it is now, in mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(DEGREES) * np.array([1, 2, -2]) / 3).as_matrix()
    middle = (affine @ [*(np.array(images["t1"].shape) / 2), 1])[:3]
    matrix[:3, 3] = middle + SHIFT_MM - matrix[:3, :3] @ middle
    return matrix


@pytest.fixture
def files(images, affine, way, write_nifti) -> dict[str, str]:
    """T1, T2 where it was, and T2 after it moved."""
    back = np.linalg.inv(affine) @ np.linalg.inv(way) @ affine
    image = images["t2"]
    head = ndimage.affine_transform((image > 0).astype(np.float32), back[:3, :3], back[:3, 3], order=1) > 0.5
    moved = ndimage.affine_transform(image, back[:3, :3], back[:3, 3], order=3).clip(1) * head
    volumes = {"t1": images["t1"], "t2": image, "moved t2": moved}
    return {name: write_nifti(f"{name}.nii.gz", volume, affine) for name, volume in volumes.items()}


def test_a_moved_contrast_is_found_and_brought_back(registered_truth, files, images, affine, way, tmp_path):
    output = tmp_path / "registered.nii.gz"
    unmoved = registered_truth.register_truth(files["t2"], files["t1"], tmp_path / "unmoved.nii.gz")

    motion = registered_truth.register_truth(files["moved t2"], files["t1"], output)

    brain = images["t2"] > 0
    assert distance_mm(motion.matrix, way, brain, affine) < 0.1
    assert distance_mm(motion.matrix, way @ unmoved.matrix, brain, affine) < 0.1
    assert motion.degrees == pytest.approx(DEGREES, abs=0.1)

    values, place = read_volume(output)
    np.testing.assert_allclose(place, affine, atol=1e-4)
    assert (values[~ndimage.binary_dilation(brain, iterations=2)] == 0).all()  # to the bit: background
    inside = ndimage.binary_erosion(brain, iterations=2)
    before, _ = read_volume(files["moved t2"])
    error, error_before = (np.abs(image - images["t2"])[inside].mean() for image in (values, before))
    assert error < 0.3 * error_before


def distance_mm(one: np.ndarray, other: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> float:
    """How far apart two ways take the voxels of the mask, in the mean."""
    voxels = np.argwhere(mask)
    points = np.c_[voxels, np.ones(len(voxels))] @ affine.T
    return np.linalg.norm((points @ (one - other).T)[:, :3], axis=1).mean()


def test_a_scan_of_nothing_alike_is_refused(registered_truth, files, affine, write_nifti):
    noise = np.random.default_rng(0).random((40, 40, 40)) + 1
    far = affine.copy()
    far[:3, 3] += 500
    with pytest.raises(ValueError, match="registration"):
        registered_truth.register_truth(write_nifti("noise.nii", noise, far), files["t1"], "never.nii.gz")
