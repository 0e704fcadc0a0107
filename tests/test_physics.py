"""Laws of the signal equations, the tissue table and the scanner model."""

import numpy as np
import pytest
from hmf_networks.physics.artefacts import bias_field, rician_noise, stored
from hmf_networks.physics.fields import expand, knots, smooth_field, voxel_centres
from hmf_networks.physics.lesions import draw_plaques, draw_tumour, pushed_aside
from hmf_networks.physics.protocols import draw_protocols
from hmf_networks.physics.signal import (
    Sequence,
    Tissue,
    inversion_recovery,
    nulling_time,
    signal,
    spin_echo,
    with_gadolinium,
)
from hmf_networks.physics.tissues import FIELDS_TESLA, LESION_TISSUES, draw_tissues, variation

WHITE = Tissue(t1=0.9, t2=0.075, pd=0.7)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_spin_echo_grows_with_repetition_time_and_falls_with_echo_time():
    times = np.linspace(0.01, 5, 50)
    assert np.all(np.diff([spin_echo(WHITE, tr=time, te=0.01) for time in times]) > 0)
    assert np.all(np.diff([spin_echo(WHITE, tr=2, te=time) for time in times]) < 0)


def test_spin_echo_of_a_fully_rested_tissue_without_delay_is_its_proton_density():
    assert spin_echo(WHITE, tr=100, te=0) == pytest.approx(WHITE.pd)


def test_inversion_recovery_nulls_at_t1_times_ln_2_when_repetition_is_long():
    assert nulling_time(0.9, tr=100) == pytest.approx(0.9 * np.log(2))
    assert inversion_recovery(WHITE, tr=100, te=0.01, ti=0.9 * np.log(2)) == pytest.approx(0, abs=1e-9)


def test_inversion_recovery_nulls_at_the_nulling_time_at_any_repetition():
    for tr in (1.0, 3.0, 9.0):
        null = nulling_time(WHITE.t1, tr=tr)
        assert inversion_recovery(WHITE, tr=tr, te=0.01, ti=null) == pytest.approx(0, abs=1e-9)


def test_a_sequence_without_inversion_time_is_a_spin_echo():
    assert signal(WHITE, Sequence(tr=2, te=0.1)) == spin_echo(WHITE, tr=2, te=0.1)
    inverted = inversion_recovery(WHITE, tr=2, te=0.1, ti=1.0)
    assert signal(WHITE, Sequence(tr=2, te=0.1, ti=1.0)) == inverted


def test_gadolinium_shortens_both_times_and_none_changes_nothing():
    enhanced = with_gadolinium(WHITE, 0.5)
    assert enhanced.t1 < WHITE.t1
    assert enhanced.t2 < WHITE.t2
    assert with_gadolinium(WHITE, 0.0) == pytest.approx(WHITE)


@pytest.mark.parametrize("field_tesla", FIELDS_TESLA)
def test_contrasts_order_the_tissues_as_radiologists_know_them(field_tesla, rng):
    for _ in range(30):
        tissues, protocols = draw_tissues(rng, field_tesla), draw_protocols(rng, field_tesla)
        seen = {name: {key: signal(tissues[key], protocols[name]) for key in tissues} for name in protocols}
        t1, t2, flair = seen["t1"], seen["t2"], seen["flair"]
        assert t1["wm"] > t1["gm"] > t1["csf"]
        assert t2["csf"] > t2["gm"] > t2["wm"]
        assert flair["plaque"] > max(flair["gm"], flair["wm"])
        assert flair["csf"] < 0.3 * flair["wm"]
        assert seen["pd"]["gm"] > seen["pd"]["wm"]


def test_longer_t1_at_the_stronger_magnet():
    weak, strong = (draw_tissues(np.random.default_rng(1), field) for field in FIELDS_TESLA)
    for name in ("gm", "wm", *LESION_TISSUES):
        assert strong[name].t1 > weak[name].t1


def test_no_tissue_table_for_an_unknown_magnet(rng):
    with pytest.raises(ValueError, match=r"7\.0 T"):
        draw_tissues(rng, 7.0)


def test_more_free_water_lengthens_both_times_together(rng):
    common = rng.standard_normal(4000)
    factors = variation(common, Tissue(*rng.standard_normal((3, 4000))))
    for factor in factors:
        assert np.corrcoef(common, factor)[0, 1] > 0.5
    assert np.corrcoef(factors.t1, factors.t2)[0, 1] < 0.95


def test_a_straight_line_passes_through_the_spline_unchanged():
    line = np.broadcast_to(knots(20.0)[0][:, None, None], [len(axis) for axis in knots(20.0)])
    axes = voxel_centres(8.0)
    expected = np.broadcast_to(axes[0][:, None, None], [len(axis) for axis in axes])
    np.testing.assert_allclose(expand(line, 20.0, axes), expected, atol=1e-4)


def test_one_seed_gives_one_field_whatever_the_voxel_size():
    fine, coarse = (smooth_field(np.random.default_rng(3), 30.0, voxel_centres(size)) for size in (2.0, 6.0))
    # 6 mm centres fall on 2 mm centres only where both grids are centred alike: along the 160 mm axes
    where = [np.argmin(abs(voxel_centres(2.0)[axis] - voxel_centres(6.0)[axis][5])) for axis in range(3)]
    assert fine[tuple(where)] == pytest.approx(coarse[5, 5, 5], abs=0.15)


def test_a_smooth_field_has_unit_spread_and_no_mean(rng):
    field = smooth_field(rng, 8.0, voxel_centres(4.0))
    assert abs(field.mean()) < 0.1
    assert field.std() == pytest.approx(1, abs=0.1)


def test_shading_stays_in_the_clinical_range_and_keeps_the_mean(rng):
    axes = voxel_centres(8.0)
    gain = bias_field(rng, axes, np.ones([len(axis) for axis in axes], bool))
    low, high = np.percentile(gain, (1, 99))
    assert gain.mean() == pytest.approx(1, abs=1e-3)
    assert 1.08 < high / low < 1.35


def test_rician_noise_lifts_darkness_to_the_rayleigh_mean(rng):
    noisy = rician_noise(rng, np.zeros(200_000, np.float32), sigma=2.0)
    assert noisy.mean() == pytest.approx(2.0 * np.sqrt(np.pi / 2), rel=0.01)


def test_stored_numbers_keep_the_order_and_never_say_background():
    values = np.linspace(0, 1, 1000, dtype=np.float32)
    numbers = stored(values, level=800.0)
    assert numbers.min() == 1
    assert np.all(np.diff(numbers) >= 0)
    assert np.percentile(numbers, 99.5) == pytest.approx(800, abs=2)


def test_lesion_maps_are_fractions_that_never_exceed_a_whole(rng):
    likelihood = np.ones((60, 60, 60), np.float32)
    for maps in (draw_plaques(rng, likelihood), draw_tumour(rng, (60, 60, 60), np.array((30, 30, 30)))):
        assert all(image.min() >= 0 and image.max() <= 1 for image in maps.values())
        assert sum(maps.values()).max() <= 1 + 1e-5
        assert sum(image.sum() for image in maps.values()) > 100


def test_plaques_stay_where_they_are_likely(rng):
    likelihood = np.zeros((60, 60, 60), np.float32)
    likelihood[20:25, 20:25, 20:25] = 1
    whole = sum(draw_plaques(rng, likelihood).values())
    assert whole[45:].sum() == 0
    assert whole[20:25, 20:25, 20:25].mean() > 0.5


def test_a_mass_pushes_its_surroundings_outwards_and_leaves_the_far_side():
    centre = np.zeros(3)
    points = np.array([[10.0, 0, 0], [200.0, 0, 0]], np.float32)
    near, far = pushed_aside(points, centre, strength=0.3, reach_mm=20)
    assert 0 < near[0] < 10  # what lies here came from further inside
    assert far[0] == pytest.approx(200)
