"""Federated learning by MONAI's client: sites train on their own patients, the server averages."""

import math
from pathlib import Path

import pytest
import torch
from hmf_networks.bundles.find import bundle_root
from hmf_networks.data.phantom import simulate_subjects
from ignite.engine import Engine, Events
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from torch import Tensor

SMALL = {
    "pixel_mm": 4.0,
    "plane_size": [48, 64],
    "slices_per_volume": 10,
    "validation_slices": 2,
    "network_def#width": 8,
    "device": "$torch.device('cpu')",
}


def site(name: str, seed: int, folder: Path) -> MonaiAlgo:
    simulate_subjects(folder / name, num_subjects=3, seed=seed, layout="brats", spacing_mm=4.0)
    changes = {**SMALL, "dataset_dir": str(folder / name), "output_dir": str(folder / f"{name}_run")}
    files = ["configs/train.json", "configs/networks/quickstart.json", "configs/quickstart.json"]
    client = MonaiAlgo(
        str(bundle_root()),
        config_train_filename=files,
        train_kwargs=dict(changes),
        config_evaluate_filename=files,  # each site validates on patients of its own
        eval_kwargs=dict(changes),
    )
    client.initialize({ExtraItems.CLIENT_NAME: name})
    return client


def remember(engine: Engine, state: dict[str, Tensor]) -> None:
    state.update({name: value.clone() for name, value in engine.network.state_dict().items()})


@pytest.mark.slow
def test_two_sites_train_a_round_and_go_on_from_the_average(tmp_path):
    sites = [site("north", 1, tmp_path), site("south", 2, tmp_path)]
    began_with: dict[str, Tensor] = {}
    weights = {name: value.clone() for name, value in sites[0].trainer.network.state_dict().items()}
    for rounds in (1, 2):
        updates = []
        for client in sites:
            client.trainer.add_event_handler(Events.STARTED, remember, began_with)
            client.train(ExchangeObject(weights=weights))
            assert all(torch.equal(began_with[name], weights[name]) for name in weights)
            update = client.get_weights()
            assert update.weight_type == WeightType.WEIGHT_DIFF
            assert update.statistics["num_executed_iterations"] == 3  # 10 slices in batches of 4
            assert update.statistics["current_epoch"] == rounds
            updates.append(update.weights)
        north, south = updates
        moved = [name for name in weights if not torch.equal(north[name], south[name])]
        assert {name for name, _ in client.trainer.network.named_parameters()} <= set(moved)
        average = {name: (north[name] + south[name]) / 2 for name in weights}
        weights = {name: value + average[name].to(value.dtype) for name, value in weights.items()}
    for client in sites:
        metrics = client.evaluate(ExchangeObject(weights=weights)).metrics
        assert math.isfinite(metrics["val_psnr"])
        asked = client.evaluator.network.state_dict()
        assert all(torch.equal(asked[name], weights[name]) for name in weights)
        client.finalize()
