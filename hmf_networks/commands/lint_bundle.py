"""`hmf lint-bundle`: what in a MONAI bundle would run code."""

import argparse
import logging

from hmf_networks.commands.arguments import Commands, to_path
from hmf_networks.naming import printable

logger = logging.getLogger(__name__)


def add_to(commands: Commands) -> None:
    lint = commands.add_parser(
        "lint-bundle",
        help="what in a MONAI bundle would run code",
        description="Read a MONAI bundle, folder or zip, and name what would run code beyond a short list of "
        "allowed names, or leave the bundle. Nothing in it is imported, evaluated, unpickled or unpacked.",
        epilog="Ends with 0 where there is nothing, with 2 where there is: look at it first.",
    )
    lint.add_argument("path", type=to_path, metavar="PATH", help="folder of a bundle, or its zip")
    lint.add_argument("--json", action="store_true", help="print the findings as JSON")
    lint.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    import json

    from hmf_networks.bundles.lint import lint_bundle

    findings = lint_bundle(options.path)
    if options.json:
        logger.info("%s", json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        for finding in findings:
            logger.info("%s", printable(str(finding)))
        logger.info("%d finding(s) in %s", len(findings), options.path)
    return 2 if findings else 0
