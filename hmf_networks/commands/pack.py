"""`hmf pack`: the bundle for the model zoo, a folder and its zip."""

import argparse
import logging
from pathlib import Path

from hmf_networks.bundles.find import bundle_root
from hmf_networks.commands.arguments import Commands, to_path

logger = logging.getLogger(__name__)


def add_to(commands: Commands) -> None:
    pack = commands.add_parser(
        "pack",
        help="assemble the bundle for the model zoo: a folder and its zip",
        description="Assemble the bundle with this package inside, check it, tell what the zoo wants.",
    )
    pack.add_argument("--output", type=to_path, default=Path("dist"), metavar="DIR", help="default: dist")
    pack.add_argument("--bundle", type=to_path, metavar="DIR", help="default: the package's own")
    pack.add_argument("--overwrite", action="store_true", help="replace folder and zip that are there")
    pack.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from hmf_networks.bundles.pack import for_the_zoo, pack

    packed = pack(options.output, options.bundle or bundle_root(), overwrite=options.overwrite)
    logger.info("%s\n%s\n%s", packed.folder, packed.archive, for_the_zoo(packed))
