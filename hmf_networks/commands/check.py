"""`hmf check`: every file and subject judged, nothing changed."""

import argparse
import logging

from hmf_networks.commands.arguments import Commands, to_count, to_path

logger = logging.getLogger(__name__)


def add_to(commands: Commands) -> None:
    check = commands.add_parser(
        "check",
        help="judge every file and subject, change nothing",
        description="Judge every file and subject; nothing is changed.",
        epilog="Ends with 0 where all is well, even if a file has warnings; with 2 where a file cannot be "
        "used or something speaks against a subject (a shift, a mirrored or exchanged contrast, a copy); "
        "with 1 where nothing could be checked.",
    )
    check.add_argument("path", type=to_path, metavar="PATH", help="file, folder, BIDS dataset or datalist")
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    check.add_argument("--volume", type=to_count, metavar="N", help="which volume of 4-D files, counted from 0")
    check.add_argument("--max-voxels", type=int, metavar="N", help="larger files are refused (default 2^28)")
    check.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    import json

    from hmf_networks.data.check import check_path, summary

    limit = {} if options.max_voxels is None else {"max_voxels": options.max_voxels}
    report = check_path(options.path, volume=options.volume, **limit)
    logger.info("%s", json.dumps(report, indent=1) if options.json else summary(report))
    is_wrong = any(entry["verdict"] == "reject" for entry in report["files"])
    return 2 if is_wrong or any(entry["verdict"] != "accept" for entry in report["subjects"]) else 0
