"""`hmf picture`: volumes of one grid side by side."""

import argparse
import logging

from hmf_networks.commands.arguments import Commands, to_path

logger = logging.getLogger(__name__)


def add_to(commands: Commands) -> None:
    picture = commands.add_parser("picture", help="draw volumes of one grid in three planes, one column each")
    picture.add_argument("volumes", nargs="+", metavar="NAME=FILE", help="caption and NIfTI file")
    picture.add_argument("--output", type=to_path, required=True, metavar="PNG")
    picture.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from hmf_networks.reports.picture import draw_files

    pairs = [text.partition("=") for text in options.volumes]
    for name, equals, path in pairs:
        if not equals or not path:
            raise ValueError(f"{name!r} is not NAME=FILE, e.g. t2=patient_t2.nii.gz")
    draw_files({name: path for name, _, path in pairs}, options.output)
    logger.info("picture: %s", options.output)
