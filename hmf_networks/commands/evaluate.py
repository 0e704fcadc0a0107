"""`hmf evaluate`: synthesised volumes scored against the true ones."""

import argparse

from hmf_networks.commands.arguments import Commands, to_path


def add_to(commands: Commands) -> None:
    evaluate = commands.add_parser("evaluate", help="score synthesised volumes against the true ones")
    evaluate.add_argument(
        "predictions", type=to_path, metavar="PREDICTIONS", help="folder as `synthesize` writes it, or one NIfTI"
    )
    evaluate.add_argument("truth", type=to_path, metavar="TRUTH", help="dataset folder, datalist, or one NIfTI file")
    evaluate.add_argument("--target", required=True, metavar="CONTRAST", help="what was synthesised, e.g. t2")
    evaluate.add_argument(
        "--output", type=to_path, metavar="DIR", help="for scores.csv, scores.json, errors.json, worst/*.png"
    )
    evaluate.add_argument(
        "--against",
        type=to_path,
        nargs="+",
        action="extend",
        default=[],
        metavar="OTHER",
        help="other runs, to compare with",
    )
    evaluate.add_argument(
        "--protocol",
        nargs="+",
        default=["volume"],
        metavar="NAME",
        help="volume, slice, affine, brasyn: docs/evaluation.md (default volume)",
    )
    evaluate.add_argument(
        "--worst", type=int, default=3, metavar="N", help="subjects to list and draw (default %(default)s)"
    )
    evaluate.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from hmf_networks.reports.evaluate_files import evaluate_files

    failures = evaluate_files(
        options.predictions,
        options.truth,
        options.target,
        output_dir=options.output,
        against=options.against,
        protocols=options.protocol,
        num_worst=options.worst,
    )
    return 2 if failures else 0
