"""Expected errors, fitted where the truth is known."""

import numpy as np
import pytest
import torch
from hmf_networks.engines.uncertainty import ensemble_spread, members
from hmf_networks.reports.calibration import (
    Sample,
    coverage,
    fit_calibration,
    rank_correlation,
    scale_of,
    sparsification,
)
from hmf_networks.transforms.expected_error import FEATURES, check_calibration, expected_error
from hmf_networks.transforms.familiarity import check_familiar, fit_familiarity, judge, source_features


def sample(seed: int, number: int = 20_000) -> Sample:
    """Errors of a Laplace law whose scale follows the spread."""
    rng = np.random.default_rng(seed)
    features = np.zeros((number, len(FEATURES)))
    features[:, 0] = 1
    features[:, 1] = rng.uniform(-5, -1, number)
    return Sample("t2", features, rng.exponential(0.5 * np.exp(0.8 * features[:, 1])))


def test_the_fit_finds_the_law_and_the_intervals_cover_what_they_say():
    found = check_calibration(fit_calibration([sample(0)]))
    constant, slope = found["coefficients"]["t2"][:2]
    assert np.exp(constant) == pytest.approx(0.5, rel=0.1)
    assert slope == pytest.approx(0.8, abs=0.03)
    _, features, errors = sample(1)
    covered = coverage(errors, scale_of(features, found["coefficients"]["t2"]), found["factors"]["t2"])
    for percent, share in covered.items():
        assert share == pytest.approx(int(percent) / 100, abs=0.02)


def test_an_expected_error_that_is_the_error_is_perfect_and_noise_tells_nothing():
    errors = np.random.default_rng(0).exponential(1.0, 5000)
    assert sparsification(errors, errors).ause == 0
    assert rank_correlation(errors, errors) == pytest.approx(1.0)
    noise = np.random.default_rng(1).permutation(errors)
    told = sparsification(errors, noise)
    assert told.ause == pytest.approx(told.random, rel=0.2)


def test_volumes_and_voxels_are_told_alike():
    found = fit_calibration([sample(0)])
    volume, spread = torch.full((3, 4, 5), 0.4), torch.rand(3, 4, 5) * 0.2 + 0.01
    expected = expected_error(volume, spread, (1, 1, 1), 2, calibration=found, target="t2")
    features = np.zeros((60, len(FEATURES)))
    features[:, 0], features[:, 1], features[:, 3] = 1, spread.log().flatten(), 0.4
    features[:, 2], features[:, 4] = np.log(1e-3), 0.16
    of_voxels = scale_of(features, found["coefficients"]["t2"])
    np.testing.assert_allclose(expected.flatten(), of_voxels, rtol=1e-4)


def test_a_calibration_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="fit it again"):
        check_calibration({"features": ["1"], "coefficients": {}, "factors": {}})


def test_members_are_the_mirrored_volume_and_each_source_left_out():
    image = torch.rand(1, 3, 4, 5, 2)
    image[:, 2] = -1.0
    asked = []

    def synthesise(volume: torch.Tensor) -> torch.Tensor:
        asked.append((volume > -1).flatten(2).any(dim=2)[0].tolist())
        return volume[:, :1]

    mirrored, *_ = members(image, synthesise, drop=True)
    assert torch.equal(mirrored, image[:, :1])
    assert asked == [[True, True, False], [False, True, False], [True, False, False]]
    assert len(list(members(image, synthesise, drop=False))) == 1


def test_the_spread_is_the_standard_deviation():
    answers = torch.rand(4, 1, 1, 3, 3, 3) * 2 - 1
    spread = ensemble_spread(answers[0], iter(answers[1:]))
    torch.testing.assert_close(spread, answers.std(dim=0, correction=0))


def test_an_odd_scan_is_flagged_and_a_usual_one_is_not():
    rng = np.random.default_rng(0)

    def scan(level: float) -> np.ndarray:
        image = np.full((2, 24, 24, 16), -1, np.float32)
        image[:, 4:20, 4:20] = level + 0.1 * rng.standard_normal((2, 16, 16, 16))
        return image

    scans = [source_features(scan(0.02 * number), ("t1", "flair"), (1, 1, 1)) for number in range(6)]
    usual = check_familiar(fit_familiarity(scans, list("aabbcc")))
    assert judge(source_features(scan(0.05), ("t1", "flair"), (1, 1, 1)), usual)["familiar"]
    odd = judge(source_features(scan(0.8), ("t1", "flair"), (3, 3, 9)), usual)
    assert not odd["familiar"]
    assert odd["distance"] > usual["limit"]
