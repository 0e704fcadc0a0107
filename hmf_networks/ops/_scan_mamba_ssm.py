"""The selective scan of mamba-ssm, for CUDA: `pip install -e ".[cuda]"`. Imported when it is asked for."""

# flake8: noqa: N803, N806

import functools
import logging
from collections.abc import Callable
from importlib.util import find_spec

import torch
from hmf_networks.ops._scan_probe import smoke_test
from torch import Tensor

logger = logging.getLogger(__name__)

MOST_STATES = 256  # of its kernel


def is_available() -> bool:
    """True where mamba-ssm is installed and passes a small test on this GPU; says once why not."""
    return torch.cuda.is_available() and find_spec("mamba_ssm") is not None and _passes()


@functools.cache
def _passes() -> bool:
    reason = smoke_test(scan_mamba_ssm)
    if reason:
        logger.warning("mamba-ssm is installed but does not serve: %s; build it for this torch and GPU", reason)
    return not reason


@functools.cache
def _kernel() -> Callable[..., Tensor]:
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError as error:
        raise RuntimeError("backend 'mamba_ssm' needs `pip install mamba-ssm` and CUDA; try 'chunked'") from error
    return selective_scan_fn


def scan_mamba_ssm(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Scan all groups in one call; shapes as in `selective_scan`. Types as its kernel wants them.

    What varies with time shares the widest type of all; parameters are float32; time lies closest in memory.
    """
    if u.device.type != "cuda" or u.dtype == torch.float64 or A.shape[1] > MOST_STATES:
        raise ValueError(
            f"backend 'mamba_ssm' is for float32 on CUDA and at most {MOST_STATES} states, "
            f"got {u.dtype} on {u.device} and {A.shape[1]}; try 'chunked'"
        )
    present = [x.dtype for x in (u, delta, B, C, z) if x is not None]
    widest = functools.reduce(torch.promote_types, present)
    series = [None if x is None else x.to(widest).contiguous() for x in (u, delta, B, C, z)]
    u_s, delta_s, B_s, C_s, z_s = series
    parameters = [None if x is None else x.float().contiguous() for x in (A, D, delta_bias)]
    A_p, D_p, bias = parameters
    return _kernel()(u_s, delta_s, A_p, B_s, C_s, D_p, z_s, bias, delta_softplus).to(u.dtype)
