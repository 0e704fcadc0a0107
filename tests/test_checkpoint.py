import copy
import logging
from pathlib import Path

import pytest
import torch
from hmf_networks.engines import ConditionalGANTrainer, WeightAverage
from hmf_networks.engines.checkpoint import TrainingCheckpoint
from hmf_networks.engines.handlers import StopWithoutProgress, flat_then_linear
from hmf_networks.engines.weights import BestModel, LoadWeights, SaveUnvalidated, load_weights, trained_network
from hmf_networks.hashing import file_hash
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.handlers import LrScheduleHandler, ValidationHandler
from monai.networks.nets import PatchDiscriminator
from monai.transforms import Randomizable
from torch import Tensor, nn
from torch.utils.data import Dataset


class Scripted(Metric):
    """A key metric that follows a script, epoch by epoch."""

    def __init__(self, script: list[float]) -> None:
        self.script = list(script)
        super().__init__()

    def reset(self) -> None: ...

    def update(self, output: object) -> None: ...

    def compute(self) -> float:
        return self.script.pop(0)


class Drawn(Dataset, Randomizable):
    """Samples as they are, and what a random transform would have drawn for each."""

    def __init__(self, data: list[dict[str, Tensor]], drawn: list[float]) -> None:
        self.data, self.drawn = data, drawn

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        self.drawn.append(self.R.random())
        return self.data[index]


class Run:
    """A training run as train.json builds it, small; `script` are the validation scores of its epochs."""

    def __init__(
        self, folder: Path, script: list[float], *, resume=False, max_epochs=4, patience=99, batch_size=2
    ) -> None:
        torch.manual_seed(1)
        data = [{"image": torch.rand(2, 8, 8), "label": torch.rand(1, 8, 8)} for _ in range(6)]
        torch.manual_seed(99 if resume else 2)  # a new process starts from other weights and another random state
        self.network = nn.Sequential(nn.Conv2d(2, 1, 3, padding=1), nn.BatchNorm2d(1))
        self.average = WeightAverage(self.network)
        self.discriminator = PatchDiscriminator(2, 4, in_channels=3, num_layers_d=1)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=0.01)
        self.d_optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=0.01)
        self.scheduler = flat_then_linear(self.optimizer, flat_epochs=1, decay_epochs=3)
        self.epochs: list[int] = []
        self.drawn: list[float] = []
        self.rates: list[float] = []
        cpu = torch.device("cpu")
        self.evaluator = SupervisedEvaluator(
            device=cpu,
            val_data_loader=DataLoader(data[:2], batch_size=1),
            network=self.average.network,
            key_val_metric={"score": Scripted(script)},
            val_handlers=[BestModel(str(folder / "model.pt"), self.average.network)],
        )
        self.objects = {
            "network": self.network,
            "average": self.average,
            "discriminator": self.discriminator,
            "optimizer": self.optimizer,
            "d_optimizer": self.d_optimizer,
            "lr_scheduler": self.scheduler,
        }
        checkpoint = TrainingCheckpoint(str(folder / "last.pt"), self.objects, evaluator=self.evaluator, resume=resume)
        self.trainer = ConditionalGANTrainer(
            device=cpu,
            max_epochs=max_epochs,
            train_data_loader=DataLoader(Drawn(data, self.drawn), batch_size=batch_size, shuffle=True),
            network=self.network,
            optimizer=self.optimizer,
            loss_function=nn.L1Loss(),
            discriminator=self.discriminator,
            d_optimizer=self.d_optimizer,
            train_handlers=[
                self.average,
                LrScheduleHandler(self.scheduler, print_lr=False),
                ValidationHandler(1, self.evaluator, epoch_level=True),
                StopWithoutProgress(self.evaluator, patience),
                checkpoint,
            ],
        )
        self.trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: self.epochs.append(engine.state.epoch))
        self.trainer.add_event_handler(
            Events.EPOCH_STARTED, lambda _: self.rates.append(self.optimizer.param_groups[0]["lr"])
        )
        self.trainer.run()

    def state(self) -> dict[str, dict]:
        return copy.deepcopy({name: thing.state_dict() for name, thing in self.objects.items()})


def assert_same(one: object, other: object) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_two_epochs_and_a_resume_equal_four_epochs_to_the_bit(tmp_path):
    whole = Run(tmp_path / "whole", [1, 2, 3, 4])
    Run(tmp_path / "parts", [1, 2], max_epochs=2)
    resumed = Run(tmp_path / "parts", [3, 4], resume=True)
    assert resumed.epochs == [3, 4]
    for name, state in whole.state().items():
        if name == "lr_scheduler":
            state.pop("lr_lambdas", None)
        for key, value in state.items():
            assert_same(resumed.state()[name][key], value)
    weights = [torch.load(tmp_path / part / "model.pt", weights_only=True) for part in ("whole", "parts")]
    assert_same(*weights)


def test_a_worse_epoch_after_a_resume_is_not_taken_for_the_best(tmp_path):
    Run(tmp_path, [5, 9], max_epochs=2)
    best = (tmp_path / "model.pt").read_bytes()
    resumed = Run(tmp_path, [7, 8], resume=True)
    assert (tmp_path / "model.pt").read_bytes() == best
    assert resumed.evaluator.state.best_metric == 9
    assert resumed.evaluator.state.best_metric_epoch == 2
    Run(tmp_path, [9.5], resume=True, max_epochs=5)
    assert (tmp_path / "model.pt").read_bytes() != best


def test_the_best_model_is_that_of_the_best_epoch_and_written_on_improvement_only(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="hmf_networks"):
        Run(tmp_path, [3, 5, 4, 5])
    ours = [record.message for record in caplog.records if record.name.startswith("hmf_networks")]
    assert [message.split(":")[0] for message in ours] == ["best so far, 3.0000", "best so far, 5.0000"]
    Run(tmp_path / "two", [3, 5], max_epochs=2)
    assert_same(*(torch.load(path / "model.pt", weights_only=True) for path in (tmp_path, tmp_path / "two")))


def test_training_stops_after_patience_epochs_without_progress(tmp_path):
    run = Run(tmp_path, [1, 4, 3, 4, 2, 9, 9, 9], max_epochs=8, patience=3)
    assert run.epochs == [1, 2, 3, 4, 5]


def test_an_improvement_starts_the_patience_anew(tmp_path):
    run = Run(tmp_path, [1, 0, 2, 0, 0, 0], max_epochs=6, patience=2)
    assert run.epochs == [1, 2, 3, 4, 5]


def test_resume_without_a_checkpoint_says_so_before_training(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"resume: no checkpoint .*last\.pt; train first"):
        Run(tmp_path, [1], resume=True)


def test_a_checkpoint_without_one_of_the_objects_is_refused(tmp_path):
    Run(tmp_path, [1], max_epochs=1)
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    del content["d_optimizer"]
    torch.save(content, tmp_path / "last.pt")
    with pytest.raises(KeyError, match="holds no 'd_optimizer'"):
        Run(tmp_path, [1], resume=True)


class Opener:
    """What a malicious file holds: something that acts when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path):
    torch.save({"network": Opener(tmp_path / "opened")}, tmp_path / "last.pt")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        Run(tmp_path, [1], resume=True)
    with pytest.raises(ValueError, match=r"last\.pt is no file of plain tensors"):
        load_weights(nn.Linear(2, 3), str(tmp_path / "last.pt"))
    assert not (tmp_path / "opened").exists()


def test_weights_come_back_whole(tmp_path):
    network, other = nn.Linear(2, 3), nn.Linear(2, 3)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    assert load_weights(other, str(tmp_path / "model.pt")) == file_hash(tmp_path / "model.pt")
    assert_same(other.state_dict(), network.state_dict())


def test_an_evaluator_has_its_weights_before_the_first_step(tmp_path):
    network, trained = nn.Linear(2, 3), nn.Linear(2, 3)
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    seen: list[dict[str, Tensor]] = []
    evaluator = Engine(lambda *_: seen.append(copy.deepcopy(network.state_dict())))
    LoadWeights(network, str(tmp_path / "model.pt")).attach(evaluator)
    evaluator.run([0])
    assert_same(seen, [trained.state_dict()])


def test_an_evaluator_without_weights_takes_no_step(tmp_path):
    evaluator = Engine(lambda *_: pytest.fail("a step without weights"))
    LoadWeights(nn.Linear(2, 3), str(tmp_path / "model.pt")).attach(evaluator)
    with pytest.raises(FileNotFoundError, match="no weights there"):
        evaluator.run([0])


def test_missing_weights_are_named_with_a_cure(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ckpt_path .*absent\.pt: no weights there; train first"):
        load_weights(nn.Linear(2, 3), str(tmp_path / "absent.pt"))


OTHERS = {
    "another width": nn.Linear(2, 4).state_dict(),
    "another architecture": nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(300))).state_dict(),
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_weights_of_another_network_are_refused_in_one_line(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt holds weights of another network than network_def") as caught:
        load_weights(nn.Linear(2, 3), str(tmp_path / "model.pt"))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_broken_file_of_weights_is_refused_in_one_line(tmp_path):
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "model.pt")
    content = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="no file of plain tensors, or a broken one"):
        load_weights(nn.Linear(2, 3), str(tmp_path / "model.pt"))


@pytest.mark.parametrize(
    "content",
    [[torch.zeros(2)], {"model": nn.Linear(2, 3).state_dict(), "epoch": 3}, {"weight": 1.0}],
    ids=["a list", "a whole checkpoint", "a number"],
)
def test_what_is_more_than_plain_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt holds more than plain tensors; give the weights"):
        load_weights(nn.Linear(2, 3), str(tmp_path / "model.pt"))


def test_a_rival_without_weights_is_left_out_and_named(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        assert trained_network(nn.Linear(2, 3), str(tmp_path / "x.pt"), None, torch.device("cpu")) is None
    assert "x.pt: that method is left out" in caplog.text


def test_a_rival_with_weights_predicts_with_them_in_evaluation_mode(tmp_path):
    network = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.9))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    fresh = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.9))
    rival = trained_network(fresh, str(tmp_path / "model.pt"), lambda x, net: net(x), torch.device("cpu"))
    image: Tensor = torch.rand(5, 2)
    assert_same(rival(image), network[0](image))


def test_an_earlier_run_is_set_aside_and_nothing_of_it_lost(tmp_path, caplog):
    Run(tmp_path, [5, 9], max_epochs=2)
    before = {name: (tmp_path / name).read_bytes() for name in ("last.pt", "model.pt", "model.json")}
    Run(tmp_path, [1], max_epochs=1)
    assert {name: (tmp_path / "earlier-1" / name).read_bytes() for name in before} == before
    assert "moved to" in caplog.text
    Run(tmp_path, [1], max_epochs=1)
    assert (tmp_path / "earlier-2" / "model.pt").exists()


def test_a_second_round_of_the_same_trainer_sets_nothing_aside(tmp_path):
    run = Run(tmp_path, [1, 2, 3, 4], max_epochs=1)
    run.trainer.run()  # as a federated client does
    assert not (tmp_path / "earlier-1").exists()


def test_a_longer_schedule_after_a_resume_has_its_own_rate_from_the_first_epoch_on(tmp_path):
    Run(tmp_path, [1, 2, 3, 4])
    run = Run(tmp_path, [5], resume=True, max_epochs=5)
    wanted = 0.01 * run.scheduler.lr_lambdas[0](4)
    assert run.rates == [wanted]


def test_a_resume_with_another_batch_trains_all_epochs_that_are_left(tmp_path):
    Run(tmp_path, [1, 2, 3], max_epochs=3)  # 9 steps of 2: more than 4 epochs of one step
    run = Run(tmp_path, [4], resume=True, batch_size=6)
    assert run.epochs == [4]
    assert run.trainer.state.iteration == 4


def test_a_resume_draws_what_would_have_been_drawn_without_the_stop(tmp_path):
    first = Run(tmp_path / "stopped", [1], max_epochs=1)
    again = Run(tmp_path / "stopped", [1, 2], resume=True, max_epochs=2)
    whole = Run(tmp_path / "whole", [1, 2], max_epochs=2)
    assert len(first.drawn) == len(again.drawn) == 6
    assert not set(first.drawn) & set(again.drawn)
    assert [*first.drawn, *again.drawn] == whole.drawn


def test_resuming_a_finished_run_says_that_it_is_finished(tmp_path, caplog):
    Run(tmp_path, [1, 2], max_epochs=2)
    assert Run(tmp_path, [], resume=True, max_epochs=2).epochs == []
    assert "all 2 epochs are done" in caplog.text


def test_without_a_validation_the_last_weights_are_saved(tmp_path, caplog):
    run = Run(tmp_path, [1, 2], max_epochs=1)
    (tmp_path / "model.pt").unlink()
    best_model = BestModel(str(tmp_path / "model.pt"), run.average.network)
    handler = SaveUnvalidated(run.evaluator, best_model)
    run.evaluator.state.best_metric_epoch = -1
    handler(run.trainer)
    assert not (tmp_path / "model.pt").exists()  # a finished run, started again: what lies there is better
    handler.note(run.trainer)
    run.evaluator.state.best_metric_epoch = 1
    handler(run.trainer)
    assert not (tmp_path / "model.pt").exists()  # the evaluator has chosen
    run.evaluator.state.best_metric_epoch = -1
    handler(run.trainer)
    assert_same(torch.load(tmp_path / "model.pt", weights_only=True), run.average.network.state_dict())
    assert "no subject to validate on" in caplog.text


def test_weights_trained_for_another_task_are_refused(tmp_path):
    network, path = nn.Linear(2, 1), str(tmp_path / "model.pt")
    task = {"sources": ["t1", "flair"], "target": "t2", "pixel_mm": 1.0}
    BestModel(path, network, task=task).save()
    load_weights(network, path, task)
    load_weights(network, path, {"target": "t2", "plane": "axial"})
    for key, other in {"sources": ["flair", "t1"], "target": "t1", "pixel_mm": 2.0}.items():
        with pytest.raises(ValueError, match=rf"was trained with {key} .*set {key}"):
            load_weights(network, path, task | {key: other})
    (tmp_path / "model.json").unlink()
    load_weights(network, path, {"target": "t1"})


def test_weights_in_half_precision_take_half_the_bytes_and_load_as_ever(tmp_path):
    network = nn.Sequential(nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64))
    for name, half in (("whole", False), ("half", True)):
        BestModel(str(tmp_path / name / "model.pt"), network, half=half).save()
    sizes = [(tmp_path / name / "model.pt").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.7 * sizes[1]
    loaded = nn.Sequential(nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64))
    load_weights(loaded, str(tmp_path / "half" / "model.pt"))
    assert loaded[0].weight.dtype == torch.float32
    assert torch.allclose(loaded[0].weight, network[0].weight, atol=1e-3)
    assert torch.equal(loaded[1].running_var, network[1].running_var)
