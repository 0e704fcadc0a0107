"""`hmf card`: the model card held to what was measured."""

import argparse
import sys

from hmf_networks.bundles.find import bundle_root
from hmf_networks.commands.arguments import Commands, to_path


def add_to(commands: Commands) -> None:
    card = commands.add_parser(
        "card",
        help="hold the bundle's model card to what was measured",
        description="Tables of the model card come from results files; its other figures must be in them.",
        epilog="Ends with 0 where all agree, with 2 where something does not: it is named with its line.",
    )
    wanted = card.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--check", action="store_true", help="change nothing")
    wanted.add_argument("--write", action="store_true", help="fill tables and eval_metrics, then check")
    card.add_argument("--bundle", type=to_path, metavar="DIR", help="default: the package's own")
    card.add_argument("--results", type=to_path, metavar="DIR", help="default: docs/results beside the bundle")
    card.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from hmf_networks.reports.model_card import check_card, write_card

    bundle = options.bundle or bundle_root()
    results = options.results or bundle.parent / "docs" / "results"
    if options.write:
        write_card(bundle, results)
    faults = check_card(bundle, results)
    for fault in faults:
        sys.stderr.write(f"hmf card: {fault}\n")
    return 2 if faults else 0
