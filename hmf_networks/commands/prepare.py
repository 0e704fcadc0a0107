"""`hmf prepare`: raw clinical studies in, a BIDS folder that training and `synthesize` read out."""

import argparse

from hmf_networks.commands.arguments import Commands, to_path
from hmf_networks.naming import CONTRASTS


def add_to(commands: Commands) -> None:
    prepare = commands.add_parser(
        "prepare",
        help="raw studies in (DICOM, NIfTI, NRRD, MHA, MGZ), a BIDS folder out",
        description="Bias field (N4), rigid registration and one grid, of every study that is found.",
    )
    add = prepare.add_argument
    add("source", type=to_path, metavar="STUDY", help="folder or .zip of one patient or many")
    add("output", type=to_path, metavar="OUT", help="BIDS folder; studies are added to it")
    add(
        "--series",
        action="append",
        default=[],
        metavar="T1=NAME",
        help="which series is which: description, number or UID of it, or the name of a file; repeatable",
    )
    add("--reference", choices=CONTRASTS, default="", help="whose place and grid the others take (default: finest)")
    add("--no-bias", action="store_true", help="leave bias fields in")
    add("--no-register", action="store_true", help="believe the headers")
    add("--no-regrid", action="store_true", help="leave each contrast on its own grid")
    add("--brain", default="", metavar="TOOL", help="take the skull off: morphological, or hd-bet where installed")
    add("--pseudonyms", type=to_path, metavar="FILE", help="table of who is who (default: OUT_pseudonyms.csv)")
    add("--overwrite", action="store_true", help="replace studies that are there")
    add("--skip-existing", action="store_true", help="keep studies that are as they would be made")
    prepare.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from hmf_networks.intake.prepare import prepare
    from hmf_networks.intake.steps import Steps

    prepare(
        options.source.expanduser().absolute(),
        options.output.expanduser().absolute(),
        steps=Steps(
            bias=not options.no_bias,
            register=not options.no_register,
            regrid=not options.no_regrid,
            brain=options.brain,
            reference=options.reference,
        ),
        series=options.series,
        pseudonym_table=options.pseudonyms,
        overwrite=options.overwrite,
        skip_existing=options.skip_existing,
    )
