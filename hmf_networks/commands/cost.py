"""`hmf cost`: parameters, multiply-accumulates, memory and time, of one network or of all methods of a study."""

import argparse
import json
import logging
import os

from hmf_networks.bundles.find import bundle_root
from hmf_networks.commands.arguments import Commands, to_count, to_path

logger = logging.getLogger(__name__)


def add_to(commands: Commands) -> None:
    cost = commands.add_parser(
        "cost",
        help="parameters and multiply-accumulates of a network; memory and time of all methods of a study",
        description="Without STUDY: HMFMambaINR. With one: every method in it, in one run (Table 3 of the paper).",
    )
    add = cost.add_argument
    add("study", type=to_path, nargs="?", metavar="STUDY", help="e.g. brats2020, as for `hmf compare`")
    add("--width", type=int, default=64, help="channels of the first stage (default %(default)s)")
    add("--sources", type=int, default=2, metavar="S", help="source contrasts (default %(default)s)")
    add("--size", type=int, nargs=2, default=(256, 256), metavar=("H", "W"), help="plane (default 256 256)")
    add("--repeats", type=to_count, default=3, metavar="N", help="the least time counts (default %(default)s)")
    add("--device", default="cpu", metavar="NAME", help="cpu or cuda (default %(default)s)")
    add("--json", type=to_path, metavar="FILE", help="what was found, as numbers")
    cost.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    if options.study is not None:
        _of_study(options)
        return
    from hmf_networks.nets import HMFMambaINR
    from hmf_networks.reports.cost import network_cost

    network = HMFMambaINR(spatial_dims=2, in_channels=options.sources, out_channels=1, width=options.width)
    cost = network_cost(network, (1, options.sources, *options.size))
    logger.info("HMFMambaINR, width %d, input 1 x %d x %d x %d", options.width, options.sources, *options.size)
    logger.info("%.2f M parameters, %.1f GMACs", cost["parameters"] / 1e6, cost["macs"] / 1e9)
    logger.info("(matrix products and convolutions; the recurrence of the scans adds %.2f)", cost["scan_macs"] / 1e9)


def _of_study(options: argparse.Namespace) -> None:
    from hmf_networks.atomic import write_whole
    from hmf_networks.studies.cost import as_table, costs_of
    from hmf_networks.studies.study import read_study

    bundle = bundle_root()
    study = read_study(options.study, bundle / "configs")
    costs = {}
    for name, cost in costs_of(study, bundle, options.size, repeats=max(options.repeats, 1), device=options.device):
        costs[name] = cost
        logger.info("%s: %.0f ms a slice", name, 1e3 * cost.slice_seconds)
    height, width = options.size
    logger.info(
        "%s on %s, %d cores, %d x %d\n\n%s", study.name, options.device, os.cpu_count(), height, width, as_table(costs)
    )
    if options.json is not None:
        content = {"study": study.name, "size": list(options.size), "device": options.device}
        content |= {"methods": {name: cost._asdict() for name, cost in costs.items()}}
        write_whole(options.json, json.dumps(content, indent=1) + "\n")
