"""The way of a volume through bundle/configs/inference.json, with networks whose answer is known."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hmf_networks.engines import SliceSynthesisInferer
from hmf_networks.nets import HMFMambaINR
from hmf_networks.ops.coordinates import sample_plane
from hmf_networks.transforms.intensity import scale_by_foreground
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch import Tensor, nn

INFERENCE = Path(__file__).parents[1] / "bundle" / "configs" / "inference.json"
DIRECTIONS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
# 12 of the 48: every axis first, in the middle and last, both ways; half of them left-handed
ORIENTATIONS = ["RAS", "LAS", "LPS", "RAI", "ARS", "PLI", "ASR", "PIL", "SRA", "ILP", "SAL", "IPR"]


class Identity(nn.Module):
    """The perfect network for the task "give me the first source": at its pixels or between them."""

    def forward(self, image: Tensor, coordinates: tuple[Tensor, Tensor] | None = None) -> Tensor:
        assert (image > -1).flatten(1).any(dim=1).all(), "an empty slice was given to the network"
        self.plane = tuple(image.shape[2:])
        first = image[:, :1]
        return first if coordinates is None else sample_plane(first, *coordinates)


class Blur(nn.Module):
    """A network that mixes neighbours and sources, the same at every place."""

    def __init__(self, out_channels: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, out_channels, 5, padding=2)

    def forward(self, image: Tensor, coordinates: tuple[Tensor, Tensor] | None = None) -> Tensor:
        blurred = torch.tanh(self.conv(image))
        return blurred if coordinates is None else sample_plane(blurred, *coordinates)


def affine_of(axcodes: str, spacing_mm=(1.0, 1.0, 1.0), *, oblique: bool = False) -> np.ndarray:
    directions = np.array([DIRECTIONS[code] for code in axcodes], dtype=float).T
    if oblique:
        a, b = np.deg2rad((17, -11))
        turn_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
        turn_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        directions = turn_z @ turn_x @ directions
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing_mm
    affine[:3, 3] = (-31.5, 12.25, 60)
    return affine


@pytest.fixture
def synthesise(tmp_path, write_nifti) -> Callable[..., np.ndarray]:
    """What inference.json writes for one subject, brought back from 0..1000 to [-1, 1]."""

    def run(values: np.ndarray, affine: np.ndarray, network: nn.Module | None = None, **options) -> np.ndarray:
        paths = {"t1": write_nifti("t1.nii.gz", values, affine)}
        paths["flair"] = write_nifti("flair.nii.gz", 7 * values[::-1], affine)
        parser = ConfigParser()
        parser.read_config(INFERENCE)
        record = {"patient": "p", "session": "", "layout": "brats", "target": "t2", **paths}
        fixed = {"sources": ["t1", "flair"], "targets": ["t2"], "any_subset": False, "foreground_box": False}
        options = {"plane_size": [32, 32], "preview": False, **fixed, **options}
        parser.update({"device": torch.device("cpu"), "output_dir": str(tmp_path / "out"), "records": [record]})
        parser.update({"network": network or Identity(), "handlers": [], "inferer#progress": False, **options})
        (tmp_path / "model.pt").write_bytes(b"of no use to these networks")
        parser.update({"ckpt_path": str(tmp_path / "model.pt")})
        parser.get_parsed_content("evaluator").run()
        image = nibabel.load(tmp_path / "out" / "p" / "p_t2_synth.nii.gz")
        np.testing.assert_array_equal(image.affine, nibabel.load(paths["t1"]).affine)
        return image.get_fdata() / 500 - 1

    return run


def normalised(values: np.ndarray) -> np.ndarray:
    return scale_by_foreground(torch.from_numpy(values.astype(np.float32))).numpy()


def noise_in_air(*shape: int) -> np.ndarray:
    """No two voxels alike, no symmetry: a swapped or shifted axis cannot hide. Air around it."""
    values = np.zeros(shape)
    inner = tuple(slice(2 + axis, -3) for axis in range(3))
    values[inner] = 0.1 + np.random.default_rng(0).random(values[inner].shape)
    return values


@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_the_identity_network_returns_the_source_however_it_is_stored(synthesise, axcodes, oblique):
    values = noise_in_air(14, 17, 12)
    written = synthesise(values, affine_of(axcodes, oblique=oblique))
    np.testing.assert_allclose(written, normalised(values), atol=1e-5)


def test_thick_slices_of_1_mm_pixels_come_back_untouched(synthesise):
    values = noise_in_air(24, 26, 9)
    written = synthesise(values, affine_of("LPS", (1, 1, 5), oblique=True))
    np.testing.assert_allclose(written, normalised(values), atol=1e-5)


@pytest.mark.parametrize("axcodes", ["SRA", "ASL", "LIP"])
def test_planes_of_acquisition_come_back_untouched(synthesise, axcodes):
    values = noise_in_air(9, 26, 24)
    written = synthesise(values, affine_of(axcodes, (5, 1, 1)), plane="acquisition")
    np.testing.assert_allclose(written, normalised(values), atol=1e-5)


def smooth_phantom(spacing_mm, wavelength_mm: float) -> np.ndarray:
    """A soft-edged square of 60 mm with waves of one length along both axes; sides of different shape."""
    x, y = ((np.arange(round(60 / mm)) + 0.5) * mm for mm in spacing_mm[:2])
    window = np.sin(np.pi * x / x[-1])[:, None] ** 2 * np.sin(np.pi * y / y[-1]) ** 2
    waves = 2 + np.cos(2 * np.pi * x / wavelength_mm)[:, None] * np.sin(2 * np.pi * y / wavelength_mm)
    return (window * waves)[..., None] * np.linspace(1, 0.5, 3)


@pytest.mark.parametrize("wavelength_mm", [24, 40])
@pytest.mark.parametrize(
    "spacing_mm", [(0.5, 0.5, 1), (0.719, 0.719, 1), (1.4, 1.4, 1.4), (0.9, 0.9, 5), (0.5, 1.4, 3)], ids=str
)
def test_waves_survive_the_way_to_1_mm_pixels_and_back(synthesise, spacing_mm, wavelength_mm):
    """Errors are those of a range of 2. Interpolating linearly twice damps a wave; it must not shift it."""
    values = smooth_phantom(spacing_mm, wavelength_mm)
    written = synthesise(values, affine_of("LPS", spacing_mm, oblique=True), plane_size=[64, 64])
    error = np.abs(written - normalised(values))
    assert error.max() < {24: 0.06, 40: 0.03}[wavelength_mm]
    assert error.mean() < 0.003


@pytest.mark.parametrize(("pixel_mm", "plane"), [(1.0, (64, 48)), (1.5, (48, 32)), (2.0, (32, 32))])
def test_the_network_sees_pixels_of_the_size_it_was_trained_at(pixel_mm, plane):
    """60 x 42 mm in pixels of 0.5 and 1.4 mm; padded to multiples of 16."""
    affine = torch.diag(torch.tensor([0.5, 1.4, 3, 1], dtype=torch.float64))
    image = MetaTensor(torch.zeros(1, 2, 120, 30, 2), affine=affine[None])
    image.is_batch = True
    network = Identity()
    SliceSynthesisInferer(pixel_mm=pixel_mm, size=(16, 16))(image, network)
    assert network.plane == plane


def test_a_field_of_300_mm_loses_nothing(synthesise):
    """The network was trained on 256 x 256; what lies in the far corners comes back all the same."""
    values = np.zeros((300, 290, 2))
    values[120:180, 120:180] = np.random.default_rng(0).random((60, 60, 2)) + 1
    values[1:5, 2:6] = values[-5:-1, -6:-2] = values[1:5, -6:-2] = values[-5:-1, 2:6] = 3
    network = Identity()
    written = synthesise(values, affine_of("LPS"), network, plane_size=[256, 256])
    np.testing.assert_allclose(written, normalised(values), atol=1e-5)
    assert written[2, 3, 0] == written[-3, -4, 1] == written[2, -4, 0] == written[-3, 3, 1] == 1
    assert network.plane == (304, 304)


@pytest.mark.parametrize("decode", ["coordinates", "resample"])
def test_slices_without_signal_stay_background(synthesise, decode):
    values = noise_in_air(14, 17, 12)
    values[..., 6] = 0
    written = synthesise(values, affine_of("RAS"), Blur(), decode=decode)
    empty = (values == 0).all(axis=(0, 1)) & (values[::-1] == 0).all(axis=(0, 1))
    assert empty.sum() == 8
    assert np.all(written[..., empty] == -1)
    assert np.all(written[3:-4, 4:-4, ~empty] > -1)


def test_background_of_all_sources_is_restored_whatever_the_network_says(synthesise):
    values = noise_in_air(14, 17, 12)
    written = synthesise(values, affine_of("RAS"), Blur())
    air = (values == 0) & (values[::-1] == 0)
    assert np.all(written[air] == -1)
    assert np.all(written[~air] > -1)


def planes_through(image: Tensor, network: nn.Module, **options) -> Tensor:
    with torch.no_grad():
        return SliceSynthesisInferer(size=(32, 32), **options)(image, network)


@pytest.mark.parametrize("decode", ["coordinates", "resample"])
def test_the_number_of_planes_at_a_time_changes_nothing(decode):
    image, network = torch.rand(1, 2, 20, 22, 11) * 2 - 1, Blur()
    singly = planes_through(image, network, batch_size=1, decode=decode)
    torch.testing.assert_close(planes_through(image, network, batch_size=8, decode=decode), singly)


def batch_of(volume: Tensor, spacing_mm: float) -> MetaTensor:
    """(1, S, X, Y, Z) as MONAI's DataLoader hands it over."""
    affine = torch.diag(torch.tensor([spacing_mm, spacing_mm, 1, 1], dtype=torch.float64))
    batch = MetaTensor(volume[None], affine=affine[None])
    batch.is_batch = True
    return batch


@pytest.mark.parametrize("spacing_mm", [0.7, 1.0, 1.6])
def test_a_network_without_coordinates_is_decoded_at_the_same_places(spacing_mm):
    image = batch_of(torch.rand(2, 20, 22, 3) * 2 - 1, spacing_mm)
    asked = planes_through(image, Identity(), decode="coordinates")
    resampled = planes_through(image, Identity(), decode="resample")
    assert torch.equal(asked, resampled)


def test_every_output_channel_comes_back_in_its_place():
    image, network = torch.rand(1, 2, 20, 22, 5) * 2 - 1, Blur(out_channels=3)
    image[..., 0] = -1
    together = planes_through(image, network)
    assert together.shape == (1, 3, 20, 22, 5)
    for channel in range(3):
        alone = planes_through(image, lambda x, channel=channel, **where: network(x, **where)[:, channel, None])
        assert torch.equal(together[:, channel], alone[:, 0])
    assert torch.all(together[..., 0] == -1)


class Masked(nn.Module):
    """Notes what it is given: sources, then masks."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Tensor] = []

    def forward(self, image: Tensor, coordinates: tuple[Tensor, Tensor]) -> Tensor:
        self.given.append(image)
        return sample_plane(image[:, :1], *coordinates)


def test_masks_are_constant_over_the_padded_plane_and_tell_of_the_whole_volume():
    image, network = torch.rand(2, 3, 20, 22, 5) * 2 - 1, Masked()
    image[0, 1] = -1  # of the first it is missing
    image[1, 2, :, :, 2:] = -1  # of the second it ends in the middle
    planes_through(image, network, masks=True, batch_size=5)
    first, second = network.given
    assert first.shape == second.shape == (5, 6, 32, 32)
    assert torch.all(first[:, :3, :5] == -1), "padding is background"
    for planes, expected in ((first, [1, 0, 1]), (second, [1, 1, 1])):
        assert planes[:, 3:].amin(dim=(2, 3)).tolist() == [expected] * 5
        assert planes[:, 3:].amax(dim=(2, 3)).tolist() == [expected] * 5


def test_masks_do_not_make_an_empty_slice_worth_running_nor_the_box_larger():
    image, network = torch.full((1, 2, 40, 44, 6), -1.0), Masked()
    image[:, 0, 4:20, 6:22, 1:3] = torch.rand(16, 16, 2)
    inferer = SliceSynthesisInferer(size=(16, 16), masks=True, box=True, batch_size=4)
    prediction = inferer(image, network)
    assert [planes.shape for planes in network.given] == [(2, 4, 16, 16)]
    assert torch.equal(prediction[:, 0], image[:, 0])


def test_every_volume_of_a_batch_is_synthesised_alone():
    image, network = torch.rand(2, 2, 20, 22, 5) * 2 - 1, Blur()
    together = planes_through(image, network)
    torch.testing.assert_close(together[1:], planes_through(image[1:], network))


def test_the_prediction_of_a_scan_knows_its_place():
    """MONAI's Invertd silently leaves plain tensors as they are: left and right were swapped once."""
    image = batch_of(torch.rand(2, 20, 22, 3), 1.6)
    prediction = planes_through(image, Identity())
    assert isinstance(prediction, MetaTensor)
    assert torch.equal(prediction.affine, image.affine)


def test_an_unknown_decode_and_a_plane_for_a_volume_are_refused():
    with pytest.raises(ValueError, match="decode must be one of"):
        SliceSynthesisInferer(decode="coordinate")
    with pytest.raises(ValueError, match=r"volumes \(B, S, X, Y, Z\), got \(1, 2, 20, 22\)"):
        SliceSynthesisInferer()(torch.zeros(1, 2, 20, 22), Identity())


def test_in_bfloat16_the_network_is_near_and_the_volume_still_float32():
    torch.manual_seed(0)
    scan, network = MetaTensor(torch.rand(1, 2, 40, 40, 3) * 2 - 1, affine=torch.eye(4)), Blur().eval()
    with torch.no_grad():
        exact, rounded = (
            SliceSynthesisInferer(size=(48, 48), precision=precision)(scan, network) for precision in ("fp32", "bf16")
        )
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).abs().max() < 0.02


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="auto, bf16, fp32"):
        SliceSynthesisInferer(precision="half")


def test_the_box_around_the_signal_is_all_that_a_network_sees_and_air_stays_air(synthesise):
    values = np.zeros((60, 70, 4))
    values[20:41, 30:62, 1:3] = np.random.default_rng(0).random((21, 32, 2)) + 0.1
    network = Identity()
    mirrored = values + values[::-1]  # the second source of `synthesise` is mirrored: now both fill one box
    written = synthesise(mirrored, affine_of("RAS"), network, plane_size=[16, 16], foreground_box=True)
    np.testing.assert_allclose(written, normalised(mirrored), atol=1e-5)
    assert network.plane == (32, 32)


def test_compiled_networks_get_the_same_planes_and_give_the_same_answers(monkeypatch):
    asked = []
    compile_with_torch = torch.compile

    def compile_quickly(function, **options):
        asked.append(options)
        return compile_with_torch(function, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", compile_quickly)
    torch.manual_seed(0)
    network = HMFMambaINR(2, 2, 1, width=4, num_residual_blocks=1).eval()
    volume = torch.rand(1, 2, 32, 32, 2) * 2 - 1
    plain, compiled = (SliceSynthesisInferer(size=(32, 32), compile=word) for word in (False, True))
    with torch.no_grad():
        torch.testing.assert_close(compiled(volume, network), plain(volume, network), atol=1e-5, rtol=1e-4)
    assert asked == [{}]
