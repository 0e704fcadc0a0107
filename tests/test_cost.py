"""What a network costs: counted with its scans, and without what no image passes through."""

from pathlib import Path

import pytest
import torch
from hmf_networks.baselines.i2i_mamba import Mamba
from hmf_networks.blocks.ssm2d import SSM2d
from hmf_networks.bundles.find import bundle_root
from hmf_networks.reports.cost import live_parameters, network_cost
from hmf_networks.studies.cost import SLICES, Cost, as_table, measure
from hmf_networks.studies.runs import configs_of
from hmf_networks.studies.study import Run, read_study
from torch import Tensor, nn

CONFIGS = bundle_root() / "configs"


def test_scans_over_maps_and_sequences_are_counted_alike():
    over_map = network_cost(SSM2d(6, state_size=5, directions=4), (2, 6, 8, 10))
    assert over_map["scan_macs"] == 3 * 2 * 80 * 4 * 6 * 5  # tokens of two maps, directions, channels, states
    over_sequence = network_cost(Mamba(6, state_size=5, expand=2), (2, 80, 6))
    assert over_sequence["scan_macs"] == 3 * 2 * 80 * 12 * 5


class WithDeadWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.Conv2d(1, 100, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def test_weights_that_no_image_passes_through_are_told():
    network = WithDeadWeights()
    assert live_parameters(network, (1, 1, 8, 8)) == 18
    assert network_cost(network, (1, 1, 8, 8)) == {"parameters": 18 + 1000, "macs": 18 * 64, "scan_macs": 0}
    assert network.used.weight.grad is None


def test_attention_is_counted_though_torch_would_do_it_in_one_call():
    layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)
    counted = network_cost(layer, (1, 10, 8))["macs"]
    assert counted == 10 * (8 * 24 + 8 * 8 + 2 * 8 * 16) + 2 * 10 * 10 * 8  # projections, MLP, scores and their sum
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("name", ["HMF-MambaINR", "PTNet", "U-Net, L1"])
def test_a_method_of_a_study_is_measured_as_its_configs_have_it(name):
    study = read_study(Path("smoke"), CONFIGS)
    files = configs_of(Run("T1+FLAIR->T2", name, 0), study, CONFIGS)
    cost = measure(files, study.methods[name].overrides, (32, 48), 1, "cpu", 1)
    assert cost.parameters == cost.live_parameters > 0
    assert min(cost.macs, cost.slice_seconds, cost.volume_seconds) > 0
    assert (cost.scan_macs > 0) == (name == "HMF-MambaINR")


def test_the_table_says_millions_and_thousands_of_millions():
    table = as_table({"ours": Cost(2_500_000, 2_400_000, 3 * 10**9, 10**9, 2**21, 0.25, 40.0)})
    head, _, line = table.splitlines()
    assert f"s for {SLICES}" in head
    assert [cell.strip() for cell in line.split("|")[1:-1]] == [
        "ours",
        "2.50",
        "2.40",
        "4.0",
        "1.00",
        "2",
        "250",
        "40.0",
    ]
