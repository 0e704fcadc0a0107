import pytest
import torch
from hmf_networks.baselines.trivial import CopySource, VoxelwiseLinear, fit_voxelwise_linear, fit_voxelwise_linear_on
from monai.data import MetaTensor

WEIGHT, BIAS = torch.tensor([0.5, -0.3]), 0.1


def linear_pair(*shape: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sources and a target that is their weighted sum, with a border of background."""
    image = torch.rand(2, *shape, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.9
    label = torch.einsum("s...,s->...", image, WEIGHT)[None] + BIAS
    image[:, :2], label[:, :2] = -1, -1
    return image, label


@pytest.fixture
def pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [linear_pair(9, 8, 7, seed=1), linear_pair(16, 16, seed=2), linear_pair(5, 30, seed=3)]


def noisy(pairs):
    return [(image, (label + 0.2 * torch.randn(label.shape)).clamp(-1, 1)) for image, label in pairs]


def test_a_copy_is_the_source_it_names():
    image = torch.rand(2, 3, 8, 8)
    assert torch.equal(CopySource(2)(image), image[:, 2:3])


def test_a_copy_of_a_source_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="has 2 sources"):
        CopySource(2)(torch.rand(1, 2, 8, 8))


def test_the_fit_finds_the_map_that_made_the_data(pairs):
    model = fit_voxelwise_linear(pairs)
    torch.testing.assert_close(model.weight, WEIGHT)
    torch.testing.assert_close(model.bias, torch.tensor(BIAS))
    for image, label in pairs:
        torch.testing.assert_close(model(image[None])[0], label)


def test_the_fit_does_not_depend_on_the_order_of_the_pairs(pairs):
    pairs = noisy(pairs)
    first, last = fit_voxelwise_linear(pairs), fit_voxelwise_linear(reversed(pairs))
    torch.testing.assert_close(first.weight, last.weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(first.bias, last.bias, rtol=1e-6, atol=1e-7)


def test_the_fit_equals_least_squares_on_all_voxels_at_once(pairs):
    pairs = noisy(pairs)
    rows = torch.cat([image[:, 2:].flatten(1).T for image, _ in pairs]).double()
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    targets = torch.cat([label[:, 2:].flatten() for _, label in pairs]).double()
    expected = torch.linalg.lstsq(rows, targets[:, None]).solution.flatten().float()
    model = fit_voxelwise_linear(pairs)
    torch.testing.assert_close(torch.cat([model.weight, model.bias[None]]), expected)


def test_background_has_no_say_in_the_fit(pairs):
    padded = [
        (torch.nn.functional.pad(x, (40, 40), value=-1), torch.nn.functional.pad(y, (40, 40), value=0.7))
        for x, y in pairs
    ]
    torch.testing.assert_close(fit_voxelwise_linear(padded).weight, fit_voxelwise_linear(pairs).weight)


def test_two_equal_sources_share_the_weight(pairs):
    twins = [(image[[0, 0]], 2 * image[:1] / 3) for image, _ in pairs]
    torch.testing.assert_close(fit_voxelwise_linear(twins).weight, torch.full((2,), 1 / 3))


def test_pairs_with_metadata_fit_alike(pairs):
    with_meta = [(MetaTensor(image), MetaTensor(label)) for image, label in pairs]
    assert torch.equal(fit_voxelwise_linear(with_meta).weight, fit_voxelwise_linear(pairs).weight)


@pytest.mark.parametrize("pairs", [[], [(torch.full((2, 4, 4), -1.0), torch.full((1, 4, 4), -1.0))]])
def test_nothing_to_fit_is_an_error(pairs):
    with pytest.raises(ValueError, match="nothing to fit"):
        fit_voxelwise_linear(pairs)


def test_a_label_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="does not match"):
        fit_voxelwise_linear([(torch.rand(2, 4, 4), torch.rand(1, 4, 5))])


def test_pairs_with_different_numbers_of_sources_are_refused():
    with pytest.raises(ValueError, match="3 sources"):
        fit_voxelwise_linear([(torch.rand(n, 4, 4), torch.rand(1, 4, 4)) for n in (2, 3)])


def test_values_that_are_not_finite_are_refused(pairs):
    pairs[1][1][0, 7, 7] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        fit_voxelwise_linear(pairs)


def test_the_linear_map_stays_in_range_and_keeps_background():
    model = VoxelwiseLinear(2)
    model.weight.fill_(3)
    image = torch.rand(1, 2, 6, 6) * 2 - 1
    image[..., :3] = -1
    target = model(image)
    assert target.shape == (1, 1, 6, 6)
    assert target.min() >= -1
    assert target.max() <= 1
    assert (target[..., :3] == -1).all()


def test_one_source_above_background_makes_foreground():
    image = torch.tensor([-1.0, 0.5]).view(1, 2, 1, 1)
    assert VoxelwiseLinear(2)(image).item() == -0.25


def test_an_untrained_linear_map_is_the_mean_of_the_sources():
    image = torch.rand(2, 3, 5, 5)
    torch.testing.assert_close(VoxelwiseLinear(3)(image), image.mean(dim=1, keepdim=True))


def test_a_fitted_map_survives_its_state_dict(pairs, tmp_path):
    model, image = fit_voxelwise_linear(pairs), torch.rand(1, 2, 8, 8)
    torch.save(model.state_dict(), tmp_path / "linear.pt")
    again = VoxelwiseLinear(2)
    again.load_state_dict(torch.load(tmp_path / "linear.pt", weights_only=True))
    assert torch.equal(again(image), model(image))


@pytest.mark.parametrize("model", [CopySource(1), VoxelwiseLinear(2)])
def test_a_trivial_baseline_can_be_scripted(model):
    image = torch.rand(1, 2, 8, 8)
    assert torch.equal(torch.jit.script(model)(image), model(image))


def test_the_regression_reads_its_subjects_once_and_only_when_asked(pairs):
    read = []

    def preprocess(record: dict) -> dict:
        read.append(record["number"])
        image, label = pairs[record["number"]]
        return {"image": image, "label": label}

    records = [{"number": n, "target": "t2"} for n in range(len(pairs))]
    predict = fit_voxelwise_linear_on(records, preprocess, ["t2"])
    assert read == []
    image = pairs[0][0][None]
    expected = fit_voxelwise_linear(pairs)(image)
    for _ in range(2):
        torch.testing.assert_close(predict(image), expected)
    assert read == list(range(len(pairs)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_linear_map_follows_its_image_to_the_gpu():
    assert VoxelwiseLinear(2)(torch.zeros(1, 2, 4, 4, device="cuda")).is_cuda


def test_without_an_index_the_last_source_that_is_there_is_copied():
    image = torch.rand(2, 3, 4, 4)
    image[0, 2] = -1
    assert torch.equal(CopySource()(image)[0, 0], image[0, 1])
    assert torch.equal(CopySource()(image)[1, 0], image[1, 2])


def test_every_target_has_a_regression_of_its_own_and_a_copy_where_nothing_teaches_it():
    image = torch.rand(2, 6, 6, 6)
    labels = {"t2": image[:1] * 0.5, "pd": 1 - image[1:]}
    predict = fit_voxelwise_linear_on(
        [{"target": "t2"}, {"target": "pd"}],
        lambda record: {"image": image, "label": labels[record["target"]]},
        ["t2", "flair", "pd"],
    )
    made = predict(image[None])
    assert made.shape == (1, 3, 6, 6, 6)
    assert torch.allclose(made[0, 0], labels["t2"][0], atol=1e-4)
    assert torch.equal(made[0, 1], image[1])
    assert torch.allclose(made[0, 2], labels["pd"][0], atol=1e-4)
