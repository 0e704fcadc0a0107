"""`hmf doctor`: what is installed, and whether it works together."""

import argparse
import logging

from hmf_networks.bundles.find import bundle_root
from hmf_networks.commands.arguments import Commands

logger = logging.getLogger(__name__)


def add_to(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="what is installed, and whether it works together",
        epilog="Ends with 0 where all is well, with 2 where something is not: the cure is named.",
    )
    doctor.set_defaults(run=_run)


def _run(_options: argparse.Namespace) -> int:
    from hmf_networks.doctor import examine

    checks = list(examine(bundle_root()))
    for check in checks:
        logger.info("%s", check)
    return 2 if any(check.cure for check in checks) else 0
