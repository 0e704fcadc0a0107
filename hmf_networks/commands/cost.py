"""`hmf cost`: parameters and multiply-accumulates of a network."""

import argparse
import logging

from hmf_networks.commands.arguments import Commands

logger = logging.getLogger(__name__)


def add_to(commands: Commands) -> None:
    cost = commands.add_parser("cost", help="parameters and multiply-accumulates of a network")
    cost.add_argument("--width", type=int, default=64, help="channels of the first stage (default %(default)s)")
    cost.add_argument("--sources", type=int, default=2, metavar="S", help="source contrasts (default %(default)s)")
    cost.add_argument(
        "--size", type=int, nargs=2, default=(256, 256), metavar=("H", "W"), help="plane (default 256 256)"
    )
    cost.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from hmf_networks.nets import HMFMambaINR
    from hmf_networks.reports.cost import network_cost

    network = HMFMambaINR(spatial_dims=2, in_channels=options.sources, out_channels=1, width=options.width)
    cost = network_cost(network, (1, options.sources, *options.size))
    logger.info("HMFMambaINR, width %d, input 1 x %d x %d x %d", options.width, options.sources, *options.size)
    logger.info("%.2f M parameters, %.1f GMACs", cost["parameters"] / 1e6, cost["macs"] / 1e9)
    logger.info("(torch.utils.flop_counter: matrix products and convolutions; the scan recurrence is not counted)")
