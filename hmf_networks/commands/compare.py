"""`hmf compare`: methods trained and scored alike, into tables and figures."""

import argparse

from hmf_networks.bundles.find import bundle_root
from hmf_networks.commands.arguments import Commands, to_path


def add_to(commands: Commands) -> None:
    compare = commands.add_parser(
        "compare",
        help="train and score methods alike, into tables and figures",
        description="Run what is missing of a study: data x tasks x methods x seeds. What is done is kept.",
        epilog="docs/experiments.md tells what the shipped studies are. pip install 'hmf-networks[compare]'.",
    )
    add = compare.add_argument
    add(
        "study",
        type=to_path,
        metavar="STUDY",
        help="smoke, simulated, ablation, motion, brats2020, ixi, or a JSON file",
    )
    add("--output", type=to_path, required=True, metavar="DIR", help="runs, results.csv, .json, .md, .tex and figures")
    add("--data", type=to_path, metavar="DIR", help="scans, in place of those that the study names")
    add("--bundle", type=to_path, metavar="DIR", help="folder of the bundle (default: the package's own)")
    add("--device", metavar="NAME", help="cpu, cuda or cuda:1 (default: CUDA where there is one)")
    compare.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from hmf_networks.studies.compare import compare
    from hmf_networks.studies.study import read_study

    bundle = (options.bundle or bundle_root()).absolute()
    study = read_study(options.study, bundle / "configs")
    compare(study, bundle, options.output.absolute(), data=options.data, device=options.device)
