import copy
import itertools
import math

import pytest
import torch
from hmf_networks.engines import ConditionalGANTrainer
from hmf_networks.engines.trainer import LOSS_NAMES
from hmf_networks.ops.coordinates import sample_plane
from ignite.engine import Events
from monai.data import DataLoader
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn

PIXEL_WEIGHT, ADVERSARIAL_WEIGHT = 7.0, 3.0


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, image: Tensor, coordinates: tuple[Tensor, Tensor] | None = None) -> Tensor:
        pred = torch.tanh(self.conv(image))
        return pred if coordinates is None else sample_plane(pred, *coordinates)


class Judge(nn.Module):
    """As MONAI's: all feature maps, the verdict last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 1, 3)

    def forward(self, image: Tensor) -> list[Tensor]:
        features = torch.relu(self.first(image))
        return [features, self.last(features)]


def slices(num: int = 4, size: int = 16) -> list[dict[str, Tensor]]:
    return [{"image": torch.rand(2, size, size) * 2 - 1, "label": torch.rand(1, size, size)} for _ in range(num)]


def trainer_of(data, generator, judge, *, max_epochs=1, lr=0.1, d_lr=0.2, batch_size=4, **options):
    options = {"pixel_weight": PIXEL_WEIGHT, "adversarial_weight": ADVERSARIAL_WEIGHT, **options}
    return ConditionalGANTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=DataLoader(data, batch_size=batch_size, shuffle=False),
        network=generator,
        optimizer=torch.optim.SGD(generator.parameters(), lr=lr),
        loss_function=nn.L1Loss(),
        discriminator=judge,
        d_optimizer=torch.optim.SGD(judge.parameters(), lr=d_lr),
        **options,
    )


def outputs_of(trainer: ConditionalGANTrainer) -> list[dict]:
    """Every sample's output of every step of a run."""
    outputs: list[dict] = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: outputs.extend(engine.state.output))
    trainer.run()
    return outputs


def batch_of(data: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([x["image"] for x in data]), torch.stack([x["label"] for x in data])


def judge_loss(judge: nn.Module, sources: Tensor, target: Tensor, fake: Tensor) -> Tensor:
    """L_D = 1/2 (D(x, y) - 1)^2 + 1/2 D(x, G(x))^2, written out."""
    real_verdict = judge(torch.cat([sources, target], 1))[-1]
    fake_verdict = judge(torch.cat([sources, fake], 1))[-1]
    return ((real_verdict - 1) ** 2).mean() / 2 + (fake_verdict**2).mean() / 2


def descend(module: nn.Module, loss: Tensor, lr: float) -> None:
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(module.parameters(), gradients, strict=True):
            parameter -= lr * gradient


def parameters(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def test_a_step_is_the_step_of_the_discriminator_then_of_the_generator_written_by_hand():
    data, generator, judge = slices(), Generator(), Judge()
    own_generator, own_judge = copy.deepcopy(generator), copy.deepcopy(judge)
    sources, target = batch_of(data)
    output = outputs_of(trainer_of(data, generator, judge))[0]

    fake = own_generator(sources)
    d_loss = judge_loss(own_judge, sources, target, fake.detach())
    descend(own_judge, d_loss, lr=0.2)
    pixel = PIXEL_WEIGHT * (target - fake).abs().mean()
    adversarial = ADVERSARIAL_WEIGHT * ((own_judge(torch.cat([sources, fake], 1))[-1] - 1) ** 2).mean()
    descend(own_generator, pixel + adversarial, lr=0.1)

    torch.testing.assert_close(parameters(judge), parameters(own_judge))
    torch.testing.assert_close(parameters(generator), parameters(own_generator))
    wanted = {"discriminator_loss": d_loss, "pixel_loss": pixel, "adversarial_loss": adversarial}
    for name, value in wanted.items():
        assert output[name] == pytest.approx(value.item(), rel=1e-5)


def test_the_generators_step_leaves_nothing_in_the_discriminator():
    """Not in its gradients, and its weights can be trained again afterwards."""
    data, generator, judge = slices(), Generator(), Judge()
    own_judge = copy.deepcopy(judge)
    sources, target = batch_of(data)
    judge_loss(own_judge, sources, target, generator(sources).detach()).backward()
    trainer_of(data, generator, judge).run()
    torch.testing.assert_close([p.grad for p in judge.parameters()], [p.grad for p in own_judge.parameters()])
    assert all(p.requires_grad for p in judge.parameters())


def test_both_networks_learn_in_every_step():
    data, generator, judge = slices(num=6), Generator(), Judge()
    trainer = trainer_of(data, generator, judge, batch_size=2)
    history = [[*parameters(generator), *parameters(judge)]]
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: history.append([*parameters(generator), *parameters(judge)])
    )
    trainer.run()
    assert len(history) == 4
    for before, after in itertools.pairwise(history):
        assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_without_adversarial_weight_the_discriminator_is_left_alone():
    data, generator, judge = slices(), Generator(), PatchDiscriminator(2, 4, in_channels=3, num_layers_d=1)
    own_generator, before = copy.deepcopy(generator), copy.deepcopy(judge.state_dict())
    output = outputs_of(trainer_of(data, generator, judge, adversarial_weight=0.0))[0]
    sources, target = batch_of(data)
    descend(own_generator, PIXEL_WEIGHT * (target - own_generator(sources)).abs().mean(), lr=0.1)
    assert all(torch.equal(value, before[name]) for name, value in judge.state_dict().items())
    torch.testing.assert_close(parameters(generator), parameters(own_generator))
    assert output["adversarial_loss"] == output["discriminator_loss"] == 0


def test_losses_of_a_verdict_that_is_known():
    """D says 1/2 to everything: L_D = (1/4 + 1/4) / 2, adversarial loss weight / 4; G is 1/4 off."""
    judge, generator = Judge(), Generator()
    for module in (judge.last, generator.conv):
        nn.init.zeros_(module.weight)
    nn.init.constant_(judge.last.bias, 0.5)
    nn.init.zeros_(generator.conv.bias)
    data = [{"image": torch.rand(2, 16, 16), "label": torch.full((1, 16, 16), 0.25)}]
    output = outputs_of(trainer_of(data, generator, judge, d_lr=0.0))[0]
    assert {name: output[name] for name in LOSS_NAMES} == pytest.approx(
        {
            "discriminator_loss": 1 / 4,
            "pixel_loss": PIXEL_WEIGHT / 4,
            "adversarial_loss": ADVERSARIAL_WEIGHT / 4,
            "side_loss": 0,
            "loss": PIXEL_WEIGHT / 4 + ADVERSARIAL_WEIGHT / 4,
        }
    )


@pytest.mark.parametrize("query_grid_share", [0.0, 1.0])
def test_the_parts_sum_to_the_loss(query_grid_share):
    judge = PatchDiscriminator(2, 4, in_channels=3, num_layers_d=1)
    trainer = trainer_of(slices(num=6), Generator(), judge, batch_size=2, query_grid_share=query_grid_share)
    for output in outputs_of(trainer):
        assert output["adversarial_loss"] > 0
        assert output["loss"] == pytest.approx(output["pixel_loss"] + output["adversarial_loss"])


class WithSides(Generator):
    """Makes the target, and its first source again."""

    def forward(self, image: Tensor, side_outputs: bool = False) -> Tensor:
        pred = super().forward(image)
        return torch.cat([pred, pred + image[:, :1]], dim=1) if side_outputs else pred


def test_side_outputs_are_judged_by_the_side_loss_alone():
    def side_loss(sides: Tensor, image: Tensor, target: Tensor) -> Tensor:
        assert sides.shape == target.shape == (2, 1, 16, 16)
        return 5 * (sides - image[:, :1]).abs().mean()

    judge, generator = Judge(), WithSides()
    nn.init.zeros_(generator.conv.weight)
    nn.init.constant_(generator.conv.bias, 0.3)
    trainer = trainer_of(slices(num=2), generator, judge, batch_size=2, lr=0.0, side_loss=side_loss)
    output, _ = outputs_of(trainer)
    assert output["pred"].shape == (1, 16, 16)
    assert output["side_loss"] == pytest.approx(5 * math.tanh(0.3), rel=1e-5)
    assert output["loss"] == pytest.approx(sum(output[f"{part}_loss"] for part in ("pixel", "adversarial", "side")))
    with pytest.raises(ValueError, match="set query_grid_share to 0"):
        trainer_of(slices(), generator, judge, side_loss=side_loss, query_grid_share=0.5)


def test_feature_maps_are_matched_layer_by_layer():
    judge, generator = Judge(), Generator()
    data = slices(num=2)
    trainer = trainer_of(data, generator, judge, batch_size=2, lr=0.0, d_lr=0.0, feature_matching_weight=4.0)
    output, _ = outputs_of(trainer)
    image, target = (torch.stack([one[name] for one in data]) for name in ("image", "label"))
    with torch.no_grad():
        real, made = (judge(torch.cat([image, y], dim=1))[0] for y in (target, generator(image)))
    assert output["side_loss"] == pytest.approx(4 * (real - made).abs().mean().item(), rel=1e-5)  # of its one layer
    with pytest.raises(ValueError, match="set adversarial_weight above 0"):
        trainer_of(slices(), generator, judge, adversarial_weight=0.0, feature_matching_weight=1.0)


def test_a_network_learns_to_invert_a_contrast():
    data = slices()
    for sample in data:
        sample["label"] = 0.5 * sample["image"][:1] - 0.5 * sample["image"][1:]
    generator, judge = Generator(), PatchDiscriminator(2, 4, in_channels=3, num_layers_d=1)
    trainer = trainer_of(data, generator, judge, max_epochs=40, query_grid_share=0.5)
    trainer.optimizer = torch.optim.Adam(generator.parameters(), lr=0.02)
    trainer.pixel_weight, trainer.adversarial_weight = 100.0, 1.0
    pixel_losses = [output["pixel_loss"] for output in outputs_of(trainer)]
    assert pixel_losses[-1] < pixel_losses[0] / 2


class Normed(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, image: Tensor) -> Tensor:
        return torch.tanh(self.norm(self.conv(image)))


@pytest.mark.parametrize("kept", [False, True])
def test_norms_that_are_kept_train_their_weights_and_compute_as_in_evaluation(kept):
    network = Normed()
    before = copy.deepcopy(network).eval()
    data = slices(num=4)
    outputs = outputs_of(trainer_of(data, network, Judge(), keep_norm_statistics=kept))
    as_evaluated = before(batch_of(data)[0])
    predicted = torch.stack([output["pred"] for output in outputs])
    assert torch.allclose(predicted, as_evaluated, atol=1e-6) == kept
    assert torch.equal(network.norm.running_mean, before.norm.running_mean) == kept
    assert not torch.equal(network.norm.weight, before.norm.weight)


class Ramp(nn.Module):
    """Knows the picture at every point of the plane: a ramp of the coordinates, in input pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([0.03, -0.02]))

    def forward(self, image: Tensor, coordinates: tuple[Tensor, Tensor] | None = None) -> Tensor:
        rows, columns = coordinates or (torch.arange(image.shape[2]), torch.arange(image.shape[3]))
        ramp = self.slope[0] * rows[:, None] + self.slope[1] * columns
        return ramp.expand(len(image), 1, -1, -1)


def test_a_ramp_known_at_every_point_has_no_loss_on_any_grid():
    network = Ramp()
    label = network(torch.zeros(1, 2, 24, 20))[0].detach()
    data = [{"image": torch.rand(2, 24, 20), "label": label} for _ in range(20)]
    trainer = trainer_of(data, network, Judge(), batch_size=1, lr=0.0, adversarial_weight=0.0, query_grid_share=1.0)
    outputs = outputs_of(trainer)
    assert max(output["pixel_loss"] for output in outputs) < 1e-5
    sizes = {tuple(output["label"].shape) for output in outputs}
    assert len(sizes) > 5  # the grids did differ
    assert all(output["image"].shape[1:] == output["label"].shape[1:] for output in outputs)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0, 0), (0.25, 4, 18), (1.0, 40, 40)])
def test_the_asked_share_of_steps_uses_a_query_grid(share, low, high):
    calls = []

    class Listener(Generator):
        def forward(self, image, coordinates=None):
            calls.append(coordinates is not None)
            return super().forward(image, coordinates)

    trainer_of(slices(num=40), Listener(), Judge(), batch_size=1, query_grid_share=share).run()
    assert low <= sum(calls) <= high
    assert len(calls) == 40


class FiveGenerator(nn.Module):
    """Ten channels in, five out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(10, 5, 1)

    def forward(self, image: Tensor, coordinates: tuple[Tensor, Tensor] | None = None) -> Tensor:
        pred = torch.tanh(self.conv(image))
        return pred if coordinates is None else sample_plane(pred, *coordinates)


class SixteenJudge(Judge):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(16, 4, 3, stride=2)


def any_to_any(given: list[bool], there: list[bool], size: int = 16, finer: int = 1) -> dict[str, Tensor]:
    label = torch.rand(5, size * finer, size * finer)
    label[~torch.tensor(there)] = -1
    image = torch.rand(5, size, size)
    image[~torch.tensor(given)] = -1
    masks = torch.tensor(given).float()[:, None, None].expand(-1, size, size)
    return {"image": torch.cat([image, masks]), "label": label}


GIVEN, THERE = [True, False, False, True, False], [True, True, True, True, False]  # t1c and t2 are wanted


def test_only_targets_that_are_there_and_not_given_are_learned():
    data = [any_to_any(GIVEN, THERE) for _ in range(4)]
    generator = FiveGenerator()
    before = generator.conv.weight.detach().clone()
    trainer_of(data, generator, SixteenJudge(), num_masks=5, adversarial_weight=0.0).run()
    moved = (generator.conv.weight - before).abs().flatten(1).sum(dim=1) > 0
    assert moved.tolist() == [False, True, True, False, False]


def test_the_pixel_loss_is_that_of_the_wanted_channels():
    data = [any_to_any(GIVEN, THERE) for _ in range(2)]
    generator = FiveGenerator()
    image, label = batch_of(data)
    with torch.no_grad():
        expected = (generator(image) - label)[:, [1, 2]].abs().mean()
    trainer = trainer_of(data, generator, SixteenJudge(), num_masks=5, adversarial_weight=0.0, batch_size=2)
    assert outputs_of(trainer)[0]["pixel_loss"] == pytest.approx(PIXEL_WEIGHT * expected.item(), rel=1e-5)


def test_the_discriminator_sees_sources_masks_one_image_and_which_contrast_it_is():
    seen = []
    judge = SixteenJudge()
    judge.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach().clone()))
    data = [any_to_any(GIVEN, THERE) for _ in range(4)]
    trainer_of(data, FiveGenerator(), judge, num_masks=5).run()
    real, fake, _ = seen
    image, label = batch_of(data)
    for shown in (real, fake):
        assert torch.equal(shown[:, :10], image)
        which = shown[:, 11:].amax((2, 3))
        assert torch.equal(which, shown[:, 11:].amin((2, 3)))
        assert (which.sum(1) == 1).all()
        assert set(which.argmax(1).tolist()) <= {1, 2}
    drawn = real[:, 11:, 0, 0].argmax(1)
    assert torch.equal(real[:, 10], label[torch.arange(4), drawn])
    assert torch.equal(real[:, 11:], fake[:, 11:])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_finer_label_is_averaged_or_read_at_the_query_grid(share):
    data = [any_to_any(GIVEN, THERE, finer=2) for _ in range(2)]
    for entry in data:  # linear in the plane: any way to read it gives the same
        ramp = torch.linspace(-0.5, 0.5, 32)
        entry["label"][1:3] = ramp[:, None] + 0.1 * ramp[None, :]
    trainer = trainer_of(data, FiveGenerator(), SixteenJudge(), num_masks=5, query_grid_share=share, batch_size=2)
    output = outputs_of(trainer)[0]
    rows = output["label"][1][:, 0]
    assert output["label"].shape[1:] == output["pred"].shape[1:]
    assert torch.allclose(rows.diff(), rows.diff()[0].expand(len(rows) - 1), atol=1e-4)


@pytest.mark.parametrize(("native", "warnings"), [(False, 1), (True, 0)])
def test_imitated_bfloat16_is_warned_of(native, warnings, monkeypatch, recwarn):
    monkeypatch.setattr("hmf_networks.engines.trainer.has_bfloat16", lambda _: native)
    trainer_of(slices(), Generator(), Judge(), amp=True)
    assert sum("--amp False" in str(one.message) for one in recwarn) == warnings
