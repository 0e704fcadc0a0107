import math

import pytest
import torch
from hmf_networks import metrics
from hmf_networks.metrics import (
    NMSEMetric,
    VolumePSNR,
    affine_fit,
    mae,
    ms_ssim,
    nmse,
    psnr,
    slice_scores,
    ssim,
    ssim_map,
    structure_maps,
    to_unit,
    volume_scores,
)
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import MultiScaleSSIMMetric, PSNRMetric, SSIMMetric

NAMES = list(metrics.METRICS)


@pytest.fixture
def truth() -> torch.Tensor:
    """A smooth volume in [0.1, 0.9], 24 x 20 x 18."""
    x, y, z = torch.meshgrid(torch.arange(24), torch.arange(20), torch.arange(18), indexing="ij")
    return 0.5 + 0.4 * torch.sin(0.5 * x) * torch.cos(0.4 * y + 0.3 * z)


@pytest.fixture
def prediction(truth) -> torch.Tensor:
    return (truth + 0.05 * torch.randn(truth.shape)).clamp(0, 1)


@pytest.fixture
def brain(truth) -> torch.Tensor:
    mask = torch.zeros(truth.shape, dtype=torch.bool)
    mask[5:18, 4:15, 3:16] = True
    return mask


def test_to_unit_maps_the_ends_of_the_range():
    assert to_unit(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0, 0.5, 1]


def test_a_uniform_error_of_a_tenth_is_20_db(truth):
    assert psnr(truth + 0.1, truth) == pytest.approx(20, abs=1e-5)
    assert mae(truth + 0.1, truth) == pytest.approx(0.1, abs=1e-7)


def test_twice_the_data_range_adds_6_db(prediction, truth):
    gain = psnr(prediction, truth, data_range=2.0) - psnr(prediction, truth)
    assert gain == pytest.approx(20 * math.log10(2))


def test_identical_volumes_score_perfectly(truth):
    assert psnr(truth, truth) == math.inf
    assert ssim(truth, truth) == ms_ssim(truth, truth) == 1
    assert nmse(truth, truth) == mae(truth, truth) == 0


def test_nmse_of_a_zero_prediction_is_one(truth):
    assert nmse(torch.zeros_like(truth), truth) == 1


def test_nmse_does_not_change_with_the_unit(prediction, truth):
    assert nmse(1000 * prediction, 1000 * truth) == pytest.approx(nmse(prediction, truth))


def test_nmse_of_a_truth_without_energy_is_not_defined(truth):
    assert math.isnan(nmse(truth, torch.zeros_like(truth)))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_mask_has_no_score(name, prediction, truth):
    nothing = torch.zeros(truth.shape, dtype=torch.bool)
    assert math.isnan(getattr(metrics, name)(prediction, truth, nothing))


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_of_everything_changes_nothing(name, prediction, truth):
    score = getattr(metrics, name)
    everything = torch.ones(truth.shape, dtype=torch.bool)
    assert score(prediction, truth, everything) == score(prediction, truth)


@pytest.mark.parametrize("name", ["psnr", "nmse", "mae"])
def test_errors_out_of_the_mask_do_not_count(name, prediction, truth, brain):
    score = getattr(metrics, name)
    elsewhere = torch.where(brain, prediction, 0)
    assert score(elsewhere, truth, brain) == score(prediction, truth, brain)


@pytest.mark.parametrize("name", NAMES)
def test_a_score_ignores_the_metadata_of_a_meta_tensor(name, prediction, truth, brain):
    score = getattr(metrics, name)
    with_meta = (MetaTensor(prediction), MetaTensor(truth), MetaTensor(brain))
    assert score(*with_meta) == score(prediction, truth, brain)


def test_a_mask_of_whole_numbers_is_refused_because_it_would_be_an_index(prediction, truth, brain):
    with pytest.raises(ValueError, match=r"wanted torch\.bool"):
        psnr(prediction, truth, brain.to(torch.uint8))


def test_volumes_of_two_shapes_are_refused(prediction, truth):
    with pytest.raises(ValueError, match="differ in shape"):
        mae(prediction[:1], truth)


def test_psnr_equals_the_one_of_monai(prediction, truth):
    ours = psnr(prediction, truth)
    assert ours == pytest.approx(PSNRMetric(max_val=1)(prediction[None, None], truth[None, None]).item(), rel=1e-6)


def test_ssim_is_symmetric(prediction, truth):
    torch.testing.assert_close(ssim_map(prediction, truth), ssim_map(truth, prediction))


def test_ssim_of_two_constants_is_its_brightness_term(truth):
    value = ssim(torch.full_like(truth, 0.2), torch.full_like(truth, 0.6))
    assert value == pytest.approx((2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4), abs=1e-4)


def test_the_inner_ssim_map_is_the_ssim_of_monai_slice_by_slice(prediction, truth):
    inner = ssim_map(prediction, truth)[5:-5, 5:-5].mean(dim=(0, 1))
    as_batch = [volume.movedim(-1, 0).unsqueeze(1) for volume in (prediction, truth)]
    expected = SSIMMetric(spatial_dims=2, data_range=1.0)(*as_batch).flatten()
    torch.testing.assert_close(inner, expected)


def test_a_slice_has_the_same_ssim_alone_as_in_its_volume(prediction, truth):
    together = ssim_map(prediction, truth)
    alone = ssim_map(prediction[..., 17:], truth[..., 17:])
    torch.testing.assert_close(together[..., 17:], alone)


def test_ssim_is_defined_for_planes_smaller_than_its_window(truth):
    assert ssim_map(truth[:3, :2], truth[:3, :2]).shape == (3, 2, 18)


@pytest.fixture
def textured() -> torch.Tensor:
    """Planes large enough for all five scales, 176 x 180 x 2, with detail of every size."""
    noise = [torch.rand(1, 2, 176 // size, 180 // size) for size in (1, 4, 16)]
    layers = [torch.nn.functional.interpolate(layer, (176, 180), mode="bilinear") for layer in noise]
    return torch.stack(layers).mean(dim=0)[0].movedim(0, -1)


def blurred(volume: torch.Tensor, size: int) -> torch.Tensor:
    means = torch.nn.functional.avg_pool2d(volume.movedim(-1, 0), size, 1, size // 2)
    return means.movedim(0, -1)


def test_ms_ssim_of_identical_planes_is_one_at_all_five_scales(textured):
    assert len(structure_maps(textured, textured).scales) == 5
    assert ms_ssim(textured, textured) == 1


def test_ms_ssim_falls_with_blur(textured):
    values = [ms_ssim(blurred(textured, size), textured) for size in (1, 3, 7, 15)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1] + 0.1


def test_ms_ssim_is_near_the_one_of_monai_that_leaves_the_border_out(textured):
    """Ours pads the planes so that every voxel of a region counts; far from the border the maps agree."""
    noisy = textured + 0.1 * torch.randn(textured.shape)
    as_batch = [volume.movedim(-1, 0).unsqueeze(1) for volume in (noisy, textured)]
    expected = MultiScaleSSIMMetric(spatial_dims=2, data_range=1.0)(*as_batch).mean().item()
    assert ms_ssim(noisy, textured) == pytest.approx(expected, abs=0.02)


def test_ms_ssim_is_the_product_over_the_scales_of_means_over_the_mask(textured):
    noisy, mask = textured + 0.1 * torch.randn(textured.shape), torch.zeros_like(textured, dtype=torch.bool)
    mask[32:96, 64:128] = True  # whole pixels at every scale
    expected = 1.0
    for scale, terms in enumerate(structure_maps(noisy, textured).scales):
        side = 2**scale
        inside = terms[32 // side : 96 // side, 64 // side : 128 // side]
        expected *= inside.double().mean().item() ** metrics.MS_SSIM_WEIGHTS[scale]
    assert ms_ssim(noisy, textured, mask) == pytest.approx(expected, rel=1e-3)  # the weights sum to 1.0001


@pytest.mark.parametrize(("side", "num_scales"), [(3, 1), (21, 1), (22, 2), (44, 3), (175, 4), (176, 5), (400, 5)])
def test_planes_too_small_for_a_scale_do_without_it(side, num_scales):
    plane = torch.rand(side, 400, 1)
    assert len(structure_maps(plane, plane).scales) == num_scales
    assert ms_ssim(plane, plane) == 1


def test_at_one_scale_ms_ssim_is_ssim(prediction, truth, brain):
    assert ms_ssim(prediction, truth, brain) == pytest.approx(ssim(prediction, truth, brain), rel=1e-6)


def test_an_uneven_border_counts_at_every_scale(textured):
    odd, mask = textured[:, :177], torch.zeros(176, 177, 2, dtype=torch.bool)
    mask[:, -1] = True
    assert ms_ssim(odd, odd, mask) == 1


def test_volume_scores_hold_every_region_and_the_whole(prediction, truth, brain):
    scores = volume_scores(prediction, truth, {"brain": brain, "label": torch.zeros_like(brain)})
    assert list(scores) == ["whole", "brain", "label"]
    assert scores["whole"] == {name: getattr(metrics, name)(prediction, truth) for name in NAMES}
    assert scores["brain"] == {name: getattr(metrics, name)(prediction, truth, brain) for name in NAMES}
    assert all(math.isnan(value) for value in scores["label"].values())


def test_a_region_cannot_take_the_name_of_the_whole(prediction, truth, brain):
    with pytest.raises(ValueError, match="another name"):
        volume_scores(prediction, truth, {"whole": brain})


def test_a_prediction_with_nan_is_refused_instead_of_scored(prediction, truth):
    prediction[3, 3, 3] = torch.nan
    with pytest.raises(ValueError, match="prediction has 1 values that are not finite"):
        volume_scores(prediction, truth, {})


def test_slice_scores_are_the_mean_over_the_slices_with_foreground(prediction, truth, brain):
    scores = slice_scores(prediction, truth, brain)
    for name in NAMES:
        score = getattr(metrics, name)
        each = [score(prediction[..., [z]], truth[..., [z]]) for z in range(3, 16)]
        assert scores[name] == pytest.approx(sum(each) / 13, rel=1e-6)


def test_slices_without_foreground_do_not_count(prediction, truth, brain):
    worse = prediction.clone()
    worse[..., 16:] = 0
    assert slice_scores(worse, truth, brain) == slice_scores(prediction, truth, brain)


def test_a_volume_without_foreground_has_no_slice_scores(prediction, truth, brain):
    scores = slice_scores(prediction, truth, torch.zeros_like(brain))
    assert list(scores) == NAMES
    assert all(math.isnan(value) for value in scores.values())


def test_affine_forgives_scale_and_offset(truth, brain):
    dimmer = 0.4 * truth + 0.1
    assert psnr(dimmer, truth, brain) < 20
    assert psnr(affine_fit(dimmer, truth, brain), truth, brain) > 100


def test_affine_leaves_what_is_out_of_the_mask(prediction, truth, brain):
    fitted = affine_fit(0.5 * prediction, truth, brain)
    assert torch.equal(fitted[~brain], 0.5 * prediction[~brain])


def test_no_other_scale_and_offset_score_better_than_the_affine_fit(prediction, truth, brain):
    best = psnr(affine_fit(prediction, truth, brain), truth, brain)
    for scale, offset in [(1, 0), (0.99, 0), (1.01, 0), (0.99, 0.005), (1, 0.005), (1, -0.005)]:
        assert psnr(scale * prediction + offset, truth, brain) < best


@pytest.mark.parametrize("useless", [lambda truth: 1 - truth, lambda truth: torch.full_like(truth, 0.3)])
def test_affine_gives_inverted_contrast_and_constants_only_the_mean_of_the_truth(useless, truth, brain):
    fitted = affine_fit(useless(truth), truth, brain)[brain]
    torch.testing.assert_close(fitted, truth[brain].mean().expand_as(fitted))


def test_affine_needs_a_voxel_to_fit(prediction, truth, brain):
    with pytest.raises(ValueError, match="mask is empty"):
        affine_fit(prediction, truth, torch.zeros_like(brain))


def test_nmse_metric_is_the_mean_of_the_items(prediction, truth):
    metric = NMSEMetric()
    metric(torch.stack([prediction, 0 * truth])[:, None], torch.stack([truth, truth])[:, None])
    assert metric.get_buffer().shape == (2, 1)
    assert metric.aggregate().item() == pytest.approx((nmse(prediction, truth) + 1) / 2, rel=1e-6)


def test_nmse_metric_refuses_the_range_of_the_network(truth):
    with pytest.raises(ValueError, match="to_unit"):
        NMSEMetric()(2 * truth[None] - 1, 2 * truth[None] - 1)


def test_no_score_at_all_is_nan_and_never_a_perfect_zero(truth):
    metric = NMSEMetric()
    metric(truth[None], torch.zeros_like(truth)[None])
    assert metric.aggregate().isnan()


def test_volume_psnr_scores_the_clipped_prediction_inside_the_foreground(prediction, truth, brain):
    label = torch.where(brain, 2 * truth - 1, -1)
    predicted = torch.where(brain, 2 * prediction - 1, 1)
    predicted[6, 6, 6] = 7
    clipped = prediction.clone()
    clipped[6, 6, 6] = 1
    value = VolumePSNR()(predicted[None, None], label[None, None]).item()
    assert value == pytest.approx(psnr(clipped, truth, brain), rel=1e-5)


def test_volumes_of_different_sizes_come_as_lists(prediction, truth):
    metric = VolumePSNR()
    metric([prediction[None], prediction[None, :9]], [truth[None], truth[None, :9]])
    assert metric.get_buffer().shape == (2, 1)


def test_a_volume_without_foreground_does_not_count_in_volume_psnr(truth):
    metric = VolumePSNR()
    metric([truth[None] - 0.2, truth[None]], [truth[None], -torch.ones_like(truth)[None]])
    assert metric.aggregate().item() == pytest.approx(20, abs=1e-4)


def test_a_diverged_network_is_never_the_best(truth):
    metric = VolumePSNR()
    metric([truth[None], torch.full_like(truth, torch.nan)[None]], [truth[None] + 0.1, truth[None]])
    assert metric.aggregate().item() == -math.inf


def test_volume_psnr_is_the_key_metric_of_a_monai_evaluator(truth):
    volumes = [{"image": truth[None], "label": truth[None] + error} for error in (0.02, 0.2, 0.2)]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(volumes), batch_size=2),
        network=torch.nn.Identity(),
        key_val_metric={
            "val_psnr": IgniteMetricHandler(metric_fn=VolumePSNR(), output_transform=from_engine(["pred", "label"]))
        },
        metric_cmp_fn=lambda current, best: current > best,
    )
    epochs = []
    evaluator.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: epochs.append(engine.state.epoch))
    evaluator.run()
    assert epochs == [1]
    assert evaluator.state.metrics["val_psnr"] == pytest.approx((40 + 20 + 20) / 3, abs=1e-4)
    assert evaluator.state.best_metric == evaluator.state.metrics["val_psnr"]
    assert evaluator.state.metric_details["val_psnr"].shape == (3, 1)
