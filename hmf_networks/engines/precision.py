"""Which numbers to compute with: bfloat16 where the processor has it, else float32.

MONAI's evaluators know autocast on CUDA alone, so the inferer sets it.
"""

from typing import Any

import torch

PRECISIONS = ("auto", "bf16", "fp32")


def is_mixed(device: torch.device, precision: str = "auto") -> bool:
    """Whether to run under autocast to bfloat16.

    Args:
        device: where the network runs.
        precision: "auto" for bfloat16 where it is native, "bf16" in any case, "fp32" never.
    """
    check_precision(precision)
    return precision == "bf16" or (precision == "auto" and has_bfloat16(device))


def check_precision(precision: str) -> str:
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return precision


def has_bfloat16(device: torch.device) -> bool:
    """True where bfloat16 is native: CUDA from Ampere on, CPUs with AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    features: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer torch
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))
