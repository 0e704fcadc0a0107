"""`hmf info`: version, contrasts, folder layouts, weights."""

import argparse
import logging
from pathlib import Path

from hmf_networks import __version__
from hmf_networks.bundles.find import bundle_root
from hmf_networks.commands.arguments import Commands
from hmf_networks.naming import CONTRASTS

logger = logging.getLogger(__name__)


def add_to(commands: Commands) -> None:
    info = commands.add_parser("info", help="version, contrasts, folder layouts, weights")
    info.add_argument("--json", action="store_true", help="the same as JSON")
    info.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    import json

    from hmf_networks.data.folder import FOLDER_LAYOUTS
    from hmf_networks.hashing import file_hash

    try:
        bundle = bundle_root()
    except FileNotFoundError:
        bundle = None
    weights = bundle / "models" / "model.pt" if bundle else Path("none")
    told = {
        "version": __version__,
        "use": "research only, not a medical device",
        "contrasts": list(CONTRASTS),
        "layouts": {name: module.EXAMPLE for name, module in FOLDER_LAYOUTS.items()},
        "bundle": str(bundle) if bundle else None,
        "weights": str(weights) if weights.is_file() else None,
        "weights_sha256": file_hash(weights) if weights.is_file() else None,
    }
    if options.json:
        logger.info("%s", json.dumps(told, indent=1))
        return
    logger.info("hmf %s - %s", told["version"], told["use"])
    logger.info("contrasts: %s", ", ".join(CONTRASTS))
    for name, module in FOLDER_LAYOUTS.items():
        logger.info("layout %-5s e.g. %s", name, module.EXAMPLE)
    logger.info("weights: %s", told["weights"] or "none")
