import pytest
import torch
from hmf_networks.engines.precision import has_bfloat16, is_mixed

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("native", "precision", "mixed"),
    [(True, "auto", True), (False, "auto", False), (True, "fp32", False), (False, "bf16", True)],
)
def test_bfloat16_is_used_where_it_is_native_or_asked_for(monkeypatch, native, precision, mixed):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native}, raising=False)
    assert is_mixed(CPU, precision) is mixed


def test_a_torch_that_cannot_tell_has_none(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_bfloat16(CPU)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="auto, bf16, fp32"):
        is_mixed(CPU, "half")
