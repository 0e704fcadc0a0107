"""Lesions laid into real slices."""

import numpy as np
import pytest
import torch
from hmf_networks.naming import CONTRASTS
from hmf_networks.transforms.lesions import MASS, PLAQUE, RandLesiond, deep, draw_shells, with_lesions

SEEDS = range(12)


def planes(size: int = 96) -> torch.Tensor:
    """A disc of smooth tissue in all contrasts but pd, which is missing."""
    line = torch.linspace(-1, 1, size)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    disc = rows**2 + columns**2 < 0.8
    tissue = 0.02 * torch.sin(9 * rows) - 0.1
    image = torch.where(disc, tissue, -1.0).expand(len(CONTRASTS), -1, -1).clone()
    image[CONTRASTS.index("pd")] = -1.0
    return image


def drawn(seed: int) -> torch.Tensor:
    return with_lesions(planes(), np.random.default_rng(seed), pixel_mm=1.5)


def test_background_and_missing_contrasts_stay():
    image = planes()
    for seed in SEEDS:
        assert torch.equal(drawn(seed) > -1, image > -1)
        assert drawn(seed).max() <= 1


def test_contrasts_change_in_the_same_places():
    flair, t2 = (CONTRASTS.index(name) for name in ("flair", "t2"))
    compared = 0
    for seed in SEEDS:
        change = (drawn(seed) - planes()).abs()
        change = change - change[:, (planes() > -1).any(dim=0)].median()  # the rescaling is everywhere
        where = change > 0.25
        if where[flair].sum() > 20 and where[t2].sum() > 20:
            both = (where[flair] & where[t2]).sum()
            assert both > 0.3 * min(where[flair].sum(), where[t2].sum())
            compared += 1
    assert compared >= 3


def test_fluid_is_dark_in_t1_and_bright_in_t2():
    t1, t2 = CONTRASTS.index("t1"), CONTRASTS.index("t2")
    inside = (planes() > -1).any(dim=0)
    darker = [(drawn(seed) - planes())[t1][inside].min().item() for seed in SEEDS]
    ratio = [(drawn(seed)[t2][inside].max() - drawn(seed)[t2][inside].median()).item() for seed in SEEDS]
    assert np.mean(darker) < -0.1
    assert np.mean(ratio) > 0.1


def test_no_plane_without_depth_gets_a_lesion():
    small = planes(24)
    assert torch.equal(with_lesions(small, np.random.default_rng(0), pixel_mm=1.0), small)


def test_depth_is_the_distance_to_the_border():
    signal = torch.ones(21, 15, dtype=torch.bool)
    assert deep(signal, 3).sum() == (21 - 6) * (15 - 6)
    signal[10, 7] = False
    assert not deep(signal, 3)[8, 5]


def test_masses_come_alone_and_plaques_may_come_together():
    places = np.full((1, 2), 40.0)
    kinds = set()
    for seed in SEEDS:
        shells = draw_shells(np.random.default_rng(seed), places)
        tissues = {number for shell in shells for number in shell.tissues}
        kinds.add(frozenset(tissues))
        assert (tissues == set(MASS) and len(shells) == 1) or tissues <= set(PLAQUE)
    assert frozenset(MASS) in kinds
    assert len(kinds) > 1


@pytest.mark.parametrize(("prob", "is_same"), [(0.0, True), (1.0, False)])
def test_it_happens_as_often_as_it_is_asked_to(prob: float, is_same: bool):
    transform = RandLesiond("image", prob=prob, pixel_mm=1.5)
    transform.set_random_state(seed=3)
    given = planes()
    assert torch.equal(transform({"image": given})["image"], planes()) == is_same
    assert torch.equal(given, planes())  # what it was given is not changed
