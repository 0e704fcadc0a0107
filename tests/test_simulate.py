"""Slices drawn from label maps while training, and whole subjects written as files."""

import nibabel
import numpy as np
import pytest
import torch
from hmf_networks.cli import main
from hmf_networks.data.head_phantom import simulate_heads
from hmf_networks.data.label_maps import find_label_maps, split_label_maps
from hmf_networks.data.slices import SimulatedSlices
from hmf_networks.physics.head import make_head
from hmf_networks.transforms.modality_dropout import ModalityDropoutd
from hmf_networks.transforms.simulate import LoadHeadd, SimulateContrastsd
from monai.transforms import Compose

from tests.heads import ball_labels

SIZE = (64, 80)


@pytest.fixture(scope="module")
def head():
    return make_head(ball_labels())


@pytest.fixture(scope="module")
def label_maps(tmp_path_factory):
    """A folder of three maps, axes left, down, front as SynthSeg's are."""
    folder = tmp_path_factory.mktemp("maps")
    affine = np.array([[-1, 0, 0, 52], [0, 0, 1, -52], [0, -1, 0, 52], [0, 0, 0, 1]], float)
    for name in ("c", "a", "b"):
        nibabel.save(nibabel.Nifti1Image(ball_labels().astype(np.uint16), affine), folder / f"{name}.nii.gz")
    (folder / "README.txt").write_text("no map")
    return folder


def drawn(head, seed=0, **options):
    simulate = SimulateContrastsd("head", size=SIZE, **options)
    simulate.set_random_state(seed=seed)
    return simulate({"head": head})


def test_image_and_label_are_planes_in_the_range_with_exact_background(head):
    for seed in range(8):
        sample = drawn(head, seed)
        for key in ("image", "label"):
            planes = sample[key]
            assert planes.shape == (5, *SIZE)
            assert planes.dtype == torch.float32
            assert planes.min() >= -1
            assert planes.max() <= 1
            assert (planes > -1).flatten(1).any(dim=1).all()


def test_an_extracted_brain_has_background_all_around(head):
    sample = drawn(head, 3, stripped_share=1.0)
    shown = (sample["image"] > -1).any(dim=0)
    assert not shown.all()
    assert (sample["image"][:, ~shown] == -1).all()
    assert (sample["label"][:, ~shown] == -1).float().mean() > 0.9  # but where a pixel is cut in two


def test_a_fine_label_averages_to_the_coarse_one(head):
    coarse, fine = drawn(head, 1)["label"], drawn(head, 1, fine_label=True)["label"]
    assert fine.shape == (5, 2 * SIZE[0], 2 * SIZE[1])
    assert torch.allclose(torch.nn.functional.avg_pool2d(fine, 2), coarse, atol=1e-6)


def test_one_state_draws_one_slice_and_another_another(head):
    assert torch.equal(drawn(head, 1)["image"], drawn(head, 1)["image"])
    assert not torch.equal(drawn(head, 1)["image"], drawn(head, 2)["image"])


def test_sources_are_noisy_and_labels_are_not(head):
    """Within white matter neighbours differ by noise in the source, by texture alone in the label."""
    rough = {"image": [], "label": []}
    for seed in range(6):
        sample = drawn(head, seed, stripped_share=1.0)
        for key in rough:
            step = (sample[key][2, 1:] - sample[key][2, :-1]).abs()
            inside = (sample["image"][2, 1:] > -0.9) & (sample["image"][2, :-1] > -0.9)
            rough[key].append(step[inside].median().item())
    assert np.mean(rough["image"]) > np.mean(rough["label"])


def test_a_map_of_any_orientation_and_voxel_size_becomes_the_same_head(label_maps, head, tmp_path):
    loaded = LoadHeadd()({"labels": str(label_maps / "a.nii.gz")})["head"]
    upright = LoadHeadd()({"labels": str(_half_resolution(tmp_path))})["head"]
    assert loaded.tissue.sum() == pytest.approx(head.tissue.sum(), rel=1e-6)
    assert np.isclose((upright.tissue > 0).sum(), (head.tissue > 0).sum(), rtol=0.05)


def _half_resolution(folder):
    path = folder / "coarse.nii.gz"
    affine = np.diag([2.0, 2, 2, 1])
    nibabel.save(nibabel.Nifti1Image(ball_labels()[::2, ::2, ::2].astype(np.uint16), affine), path)
    return path


def test_a_map_without_brain_is_named(tmp_path):
    path = tmp_path / "legs.nii.gz"
    labels = np.full((20, 20, 20), 507, np.uint16)
    labels[0] = 0
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), path)
    with pytest.raises(ValueError, match=r"legs\.nii\.gz: no brain"):
        LoadHeadd()({"labels": str(path)})


def test_maps_are_shared_out_by_name(label_maps):
    parts = split_label_maps(label_maps, [1, 1, 1])
    assert [parts[part][0]["patient"] for part in ("training", "validation", "testing")] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="holds 3 label maps"):
        split_label_maps(label_maps, [2, 1, 1])
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_label_maps(label_maps / "nowhere")


def test_a_fixed_dataset_repeats_itself_and_another_does_not(label_maps):
    records = find_label_maps(label_maps)[:1]

    def dataset(**options):
        chain = Compose([SimulateContrastsd("head", size=SIZE), ModalityDropoutd("image")])
        return SimulatedSlices(records, LoadHeadd(), chain, num_slices=2, **options)

    fixed, free = dataset(fixed=True), dataset()
    assert len(fixed) == 2
    assert torch.equal(fixed[1][0]["image"], fixed[1][0]["image"])
    assert not torch.equal(fixed[0][0]["image"], fixed[1][0]["image"])
    assert not torch.equal(free[0][0]["image"], free[0][0]["image"])


def test_scans_and_truth_lie_on_one_grid_and_repeat_to_the_byte(head, tmp_path):
    options = {"num_subjects": 1, "seed": 4, "layout": "bids", "spacing_mm": 3.0, "thickness_mm": 6.0}
    for name in ("one", "other"):
        simulate_heads(tmp_path / name, [head], **options)
    first = {path.relative_to(tmp_path / "one"): path for path in (tmp_path / "one").rglob("*.nii.gz")}
    assert len(first) == 2 * (5 + 2)
    for relative, path in first.items():
        assert path.read_bytes() == (tmp_path / "other" / relative).read_bytes()
    images = [nibabel.load(path) for path in first.values()]
    assert len({image.shape for image in images}) == 1
    assert images[0].header.get_zooms() == pytest.approx((3.0, 3.0, 6.0))
    labels = [np.asarray(nibabel.load(p).dataobj) for r, p in first.items() if r.name.endswith("dseg.nii.gz")]
    assert set(np.unique(labels[0])) <= {0, 1, 2, 3, 4}
    assert np.array_equal(labels[0], labels[1])


def test_the_command_writes_scans_and_truth_and_replaces_nothing(label_maps, tmp_path, capsys):
    arguments = ["simulate", str(tmp_path / "out"), "--labels", str(label_maps), "--subjects", "1", "--spacing", "4"]
    assert main(arguments) == 0
    folders = {path.parent.parent.name for path in (tmp_path / "out").rglob("*-t2w.nii.gz")}
    assert folders == {"scans", "truth"}
    assert main(arguments) == 1
    assert "is there already" in capsys.readouterr().err


def test_thickness_belongs_to_label_maps(tmp_path, capsys):
    assert main(["simulate", str(tmp_path / "out"), "--thickness", "3"]) == 1
    assert "--labels" in capsys.readouterr().err


def test_a_slab_is_of_the_same_person_and_meets_a_lesion(head, tmp_path):
    """Of subject 1, whole and slab: the slab's truth is a run of slices of the whole head's."""
    options = {"num_subjects": 4, "seed": 1, "layout": "bids", "spacing_mm": 3.0, "stripped_share": 1.0}
    whole = simulate_heads(tmp_path / "whole", [head], **options)
    slab = simulate_heads(tmp_path / "slab", [head], **options, num_slices=4)
    assert any(summary["lesion_ml"] > 0 for summary in whole)
    for one, other in zip(whole, slab, strict=True):
        assert (one["lesion_ml"] > 0) == (other["lesion_ml"] > 0)
        name = f"truth/derivatives/labels/{one['subject']}/anat/{one['subject']}_dseg.nii.gz"
        labels, few = (np.asarray(nibabel.load(tmp_path / p / name).dataobj) for p in ("whole", "slab"))
        assert few.shape == (*labels.shape[:2], 4)
        starts = range(labels.shape[2] - 3)
        assert any(np.array_equal(labels[..., start : start + 4], few) for start in starts)


def test_a_slab_has_at_least_one_slice(head, tmp_path):
    with pytest.raises(ValueError, match="num_slices is 0"):
        simulate_heads(tmp_path, [head], num_subjects=1, seed=0, num_slices=0)
