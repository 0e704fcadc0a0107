"""Heads from label maps: what is looked up, what a scene shows, what a scanner makes of it."""

import numpy as np
import pytest
import torch
from hmf_networks.ops.foreground import foreground
from hmf_networks.physics.artefacts import rician_noise
from hmf_networks.physics.contrast_table import draw_table
from hmf_networks.physics.head import SHRINKING, Head, make_head
from hmf_networks.physics.head_tissues import AIR, KINDS, NAMES, NUMBER, OUTSIDE, tissue_of_label
from hmf_networks.physics.lesions import draw_tumour_shells
from hmf_networks.physics.pixels import to_pixels
from hmf_networks.physics.protocols import CANONICAL, draw_any_protocols
from hmf_networks.physics.scanner import draw_scan, least_signal, percentiles, receive, scaled_plane
from hmf_networks.physics.scene import draw_scene, render, sample_signals
from hmf_networks.physics.signal import Tissue, gradient_echo, signal, signed_signal
from hmf_networks.physics.view import draw_view
from hmf_networks.transforms.intensity import scale_by_foreground

from tests.heads import BONE, CORTEX, FLUID, WHITE, ball_labels

T1, T1C, T2, FLAIR, PD = range(5)
CANONICAL_COLUMNS = slice(len(CANONICAL), None)
EXTENTS = (96.0, 96.0, 0.0)


@pytest.fixture(scope="module")
def head() -> Head:
    return make_head(ball_labels())


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def axis(extent: float = 96.0, step: float = 0.5) -> np.ndarray:
    count = round(extent / step)
    return ((np.arange(count) - (count - 1) / 2) * step).astype(np.float32)


def scene_of(head, rng, **options):
    middle = (head.brain_low + head.brain_high) / 2
    return draw_scene(rng, head, EXTENTS, **{"at": middle, "stripped_share": 0.0, "healthy": True} | options)


def slice_of(scene, step=1.0):
    return render(scene, axis(step=step), axis(step=step), np.zeros(1))


def test_every_label_is_one_tissue_and_unknown_ones_are_soft():
    labels = [label for kind in KINDS.values() for label in kind.labels]
    assert len(labels) == len(set(labels))
    table = tissue_of_label(600)
    assert NAMES[table[WHITE]] == "white matter"
    assert NAMES[table[BONE]] == "bone"
    assert NAMES[table[599]] == "soft"
    assert NAMES[table[0]] == "air"


def test_the_head_knows_what_lies_how_far_from_brain_and_ventricles(head):
    tissue = head.tissue & (SHRINKING - 1)
    of_brain = np.isin(tissue, [NUMBER["cortex"], NUMBER["white matter"]])
    assert (head.distance[of_brain] == 0).all()
    assert head.distance[tissue == NUMBER["bone"]].min() >= 2
    middle = tuple(size // 2 for size in tissue.shape)
    assert NAMES[tissue[middle]] == "csf"
    assert head.from_ventricles[tuple(size // 2 for size in head.from_ventricles.shape)] == 0
    assert (tissue[head.tissue >= SHRINKING] == NUMBER["cortex"]).all()


def test_a_map_without_brain_is_refused():
    labels = ball_labels()
    labels[np.isin(labels, [CORTEX, WHITE])] = FLUID
    with pytest.raises(ValueError, match="no brain"):
        make_head(labels)


def test_a_gradient_echo_is_brightest_at_the_ernst_angle_and_dark_without_flip():
    tissue, angles = Tissue(0.9, 0.075, 0.7), np.linspace(1, 89, 177)
    values = [gradient_echo(tissue, tr=0.02, te=0.004, flip=angle) for angle in angles]
    ernst = np.degrees(np.arccos(np.exp(-0.02 / tissue.t1)))
    assert angles[int(np.argmax(values))] == pytest.approx(ernst, abs=0.5)
    assert gradient_echo(tissue, tr=0.02, te=0.004, flip=0.0) == 0


def test_magnitude_is_the_size_of_the_signed_signal(rng):
    tissue = Tissue(1.2, 0.1, 0.8)
    for _ in range(20):
        for sequence in draw_any_protocols(rng, 3.0).values():
            assert signal(tissue, sequence) == pytest.approx(abs(signed_signal(tissue, sequence)))


def test_canonical_contrasts_order_the_tissues_as_radiologists_know_them(rng):
    for _ in range(5):
        table = np.abs(draw_table(rng)[:, 0, CANONICAL_COLUMNS])
        white, grey, fluid, lesion = (table[NUMBER[name]] for name in ("white matter", "cortex", "csf", "plaque"))
        assert white[T1] > grey[T1] > fluid[T1]
        assert fluid[T2] > lesion[T2] > grey[T2] > white[T2]
        assert lesion[FLAIR] > grey[FLAIR] > white[FLAIR] > fluid[FLAIR]


def test_the_table_follows_the_signal_equations_where_tissue_varies_a_little():
    table = draw_table(np.random.default_rng(1))
    value, slopes = table[NUMBER["cortex"], 0, 5 + T2], table[NUMBER["cortex"], 1:, 5 + T2]
    assert slopes[2] == pytest.approx(value, rel=0.02)  # proportional to the protons
    assert slopes[1] > 0 > slopes[0] * 10 - value  # longer T2 brightens; T1 matters little at a long TR


def test_one_state_of_the_generator_gives_one_scene(head):
    first, second = (slice_of(scene_of(head, np.random.default_rng(5))).signals for _ in range(2))
    other = slice_of(scene_of(head, np.random.default_rng(6))).signals
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_a_slice_does_not_depend_on_how_finely_others_are_looked_at(head, rng):
    scene = scene_of(head, rng)
    fine = slice_of(scene, step=0.5)
    some = render(scene, axis(step=0.5)[10:40], axis(step=0.5)[60:80], np.zeros(1))
    inner = some.signals[:, 2:-2, 2:-2]  # nearer the rim the point spread asks for what is not looked at
    assert np.allclose(fine.signals[:, 12:38, 62:78], inner, atol=1e-5)


def test_what_is_alike_stays_so_and_a_border_is_soft(head, rng):
    scene = scene_of(head, rng)
    plain = scene.view._replace(matrix=np.eye(3, dtype=np.float32), bends=[], growth_mm=0.0)
    shown = slice_of(scene._replace(view=plain, texture=0.0), step=0.5).signals[PD]
    radius = np.hypot(axis()[:, None], axis()[None, :])
    fluid, white = scene.table[[NUMBER["csf"], NUMBER["white matter"]], 0, PD]
    assert np.allclose(shown[radius < 4], fluid, rtol=1e-4)
    assert np.allclose(shown[(radius > 11) & (radius < 26)], white, rtol=1e-4)
    low, high = np.interp((0.2, 0.8), (0, 1), sorted((fluid, white)))
    assert ((shown > low) & (shown < high))[radius < 11].any()


def test_most_axial_slices_lie_high_in_the_brain_and_none_outside(head, rng):
    low, high = head.brain_low[2], head.brain_high[2]
    heights = [(draw_view(rng, head, EXTENTS).centre[2] - low) / (high - low) for _ in range(400)]
    assert min(heights) > 0
    assert max(heights) < 1
    assert 0.55 < np.mean(heights) < 0.65
    assert np.mean(np.abs(np.subtract(heights, 0.6)) < 0.25) > 0.7


def test_a_thick_slice_mixes_the_signals_of_what_it_holds(head, rng):
    scene = scene_of(head, rng)
    places = np.array([-2.0, 2.0])
    thick = render(scene, axis(step=1.0), axis(step=1.0), places)
    alone = [render(scene, axis(step=1.0), axis(step=1.0), places[i : i + 1]) for i in range(2)]
    mean = (alone[0].signals[PD] + alone[1].signals[PD]) / 2  # of a spin echo: no signal is below zero
    assert np.allclose(thick.signals[PD], mean, atol=1e-5)


def test_an_extracted_brain_has_nothing_of_the_head(head, rng):
    for _ in range(5):
        shown = slice_of(scene_of(head, rng, stripped_share=1.0))
        outside = np.isin(shown.tissue, [NUMBER[name] for name in OUTSIDE])
        assert not shown.inside[outside].any()
        of_brain = np.isin(shown.tissue, [NUMBER["cortex"], NUMBER["white matter"]])
        assert shown.inside[of_brain].all()


def test_an_extracted_brain_keeps_its_ventricles_and_the_fluid_in_its_folds(head, rng):
    for _ in range(5):
        shown = slice_of(scene_of(head, rng, stripped_share=1.0))
        middle = tuple(size // 2 for size in shown.inside.shape)
        assert NAMES[shown.tissue[middle]] == "csf"
        assert shown.inside[middle]
        t2 = shown.signals[len(CANONICAL) + T2]
        assert t2[middle] > 1.5 * np.median(t2[shown.inside])
    labels = np.full((120,) * 3, FLUID, np.int32)
    labels[20:100, 20:100, 20:100] = CORTEX
    labels[20:60, 57:63, 40:80] = FLUID  # a sulcus, 6 mm wide, 40 mm deep
    labels[20:60, 20:60, 82:100] = FLUID  # a corner without brain
    distance = make_head(labels).distance
    assert distance[40, 60, 60] == 0
    assert distance[26, 26, 97] > 5


def test_lesions_are_bright_on_flair_and_lie_in_solid_tissue(head):
    found = 0
    for seed in range(12):
        shown = slice_of(scene_of(head, np.random.default_rng(seed), healthy=False, stripped_share=1.0))
        ill, white = shown.lesion > 0.9, (shown.lesion == 0) & (shown.tissue == NUMBER["white matter"])
        if ill.sum() > 20 and white.any():
            found += 1
            flair = shown.signals[len(CANONICAL) + FLAIR]
            assert np.percentile(flair[ill], 75) > np.median(flair[white])
    assert found >= 3


def test_a_tumour_ends_where_the_head_and_its_bone_begin(head):
    covered = 0
    for seed in range(12):
        shown = slice_of(scene_of(head, np.random.default_rng(seed), healthy=False))
        outside = np.isin(shown.tissue, [NUMBER[name] for name in (AIR, *OUTSIDE)])
        assert not shown.lesion[outside].any()
        covered += (shown.lesion > 0.5).sum()
    assert covered > 1000


def test_no_lesion_is_cut_off_where_it_is_looked_for(rng):
    for _ in range(30):
        shells = draw_tumour_shells(rng, np.zeros(3, np.float32), (2, 1, 0))
        points = rng.standard_normal((3, 4000)).astype(np.float32)
        points *= rng.uniform(0, 250, 4000) / np.linalg.norm(points, axis=0)
        near, shares = shells.at(points)
        settings = zip(shells.radii_mm, shells.crinkles, shells.edges_mm, strict=True)
        for (radius, crinkle, edge_mm), share in zip(settings, shares, strict=True):
            everywhere = shells.blob.share(points.T, radius=radius, crinkle=crinkle, edge_mm=edge_mm)
            assert np.delete(everywhere, near).max(initial=0) == 0
            assert np.allclose(everywhere[near], share)


def test_signals_of_opposite_sign_cancel_where_they_meet(head):
    """As in a voxel: magnitudes are taken of what adds up, never added up themselves."""
    signed = 0
    for seed in range(6):
        scene = scene_of(head, np.random.default_rng(seed))
        flair = slice_of(scene).signals[FLAIR]
        signed += (flair < 0).any() and (flair > 0).any()
    assert signed


@pytest.mark.parametrize("masked", [True, False])
def test_a_plane_is_scaled_as_the_volume_that_it_is_of(masked):
    """Air and dark fluid are background, or are not, as `scale_by_foreground` has it."""
    rng = np.random.default_rng(0)
    line = np.linspace(-1.4, 1.4, 56, dtype=np.float32)
    radius = np.sqrt(sum(part**2 for part in np.meshgrid(line, line, line, indexing="ij")))
    head = radius < 1
    clean = np.where(head, 100 + 30 * np.sin(9 * radius), 0)
    clean[radius < 0.5] = 4.0  # fluid, nulled
    volume = rician_noise(rng, clean.astype(np.float32), sigma=1.5)
    if masked:
        volume[~head] = 0
    air = None if masked else float(np.median(volume[radius > 2]))
    low, high = percentiles(volume[head], air)
    inside = (volume != 0) & (np.abs(volume - (air or 0.0)) > least_signal(volume[head], air))
    ours, theirs = scaled_plane(volume, inside, low, high), scale_by_foreground(torch.from_numpy(volume))
    assert np.abs(ours - theirs.numpy()).max() < 0.03
    assert ((ours > -1) != (theirs.numpy() > -1)).mean() < 0.01
    assert (ours[~head] > -1).mean() < 0.01


@pytest.mark.parametrize("stripped", [0.0, 1.0])
def test_drawn_voxels_have_the_percentiles_of_the_whole_volume(head, stripped):
    """What stands for a volume while slices are drawn is scaled as the volume itself would be."""
    off = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        middle = (head.brain_low + head.brain_high) / 2
        scene = draw_scene(rng, head, (96.0,) * 3, at=middle, healthy=True, stripped_share=stripped)
        slices = [render(scene, axis(), axis(), np.array([place])) for place in axis(step=6.0)]
        shown = np.stack([to_pixels(slice_.inside.astype(np.float32)) > 0.5 for slice_ in slices], -1)
        volume = np.abs(np.stack([to_pixels(slice_.signals) for slice_ in slices], -1)) * shown
        voxels = sample_signals(rng, scene)
        for true, drawn in zip(volume[CANONICAL_COLUMNS], voxels.T[CANONICAL_COLUMNS], strict=True):
            inside = foreground(torch.from_numpy(true)).numpy()
            wanted = np.percentile(true[inside], (0.5, 99.5))
            off.append((np.array(percentiles(drawn)) - wanted) / np.diff(wanted))
    shares = np.reshape(off, (4, len(CANONICAL), 2))
    assert np.abs(shares.mean(0)).max() < 0.15, shares.mean(0)


def test_what_is_received_keeps_its_place_and_order(head, rng):
    shown = slice_of(scene_of(head, rng, stripped_share=1.0))
    scan = draw_scan(rng, stripped=True)
    received = receive(rng, scan, shown.signals[T2], shown.inside, float(np.median(shown.signals[T2])), (1, 1))
    assert received.image.shape == shown.inside.shape
    assert (received.image[~shown.inside] == 0).all()
    both = np.corrcoef(received.image[shown.inside], shown.signals[T2][shown.inside])[0, 1]
    assert both > 0.8


def test_a_wider_ventricle_pushes_the_brain_outwards(head, rng):
    scene = scene_of(head, rng)
    narrow, wide = (
        slice_of(scene._replace(view=scene.view._replace(growth_mm=growth))).tissue for growth in (0.0, 3.0)
    )
    centre = (slice(30, 66), slice(30, 66))
    assert (wide[centre] == NUMBER["csf"]).sum() > (narrow[centre] == NUMBER["csf"]).sum()


def test_labels_of_the_map_are_where_the_scene_shows_them(head, rng):
    """Not turned, not bent, not stretched, a scene is a cut through the map."""
    scene = scene_of(head, rng)
    plain = scene.view._replace(matrix=np.eye(3, dtype=np.float32), bends=[], growth_mm=0.0)
    shown = slice_of(scene._replace(view=plain, shrunk=(99.0, scene.shrunk[1])))
    radius = np.hypot(axis(step=1.0)[:, None], axis(step=1.0)[None, :])
    assert (shown.tissue[radius < 5] == NUMBER["csf"]).all()
    assert (shown.tissue[(radius > 10) & (radius < 27)] == NUMBER["white matter"]).all()
    assert (shown.tissue[(radius > 39) & (radius < 40)] == NUMBER["bone"]).all()
    assert {NUMBER["fat"], NUMBER["muscle"]} >= set(shown.tissue[(radius > 42) & (radius < 43)])
