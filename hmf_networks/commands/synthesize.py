"""`hmf synthesize`: the missing contrasts, NIfTI in and NIfTI out."""

import argparse
from typing import Any

from hmf_networks.bundles.find import bundle_root
from hmf_networks.commands.arguments import Commands, add_weights_and_bundle, to_count, to_path
from hmf_networks.naming import CONTRASTS


def add_to(commands: Commands) -> None:
    synthesize = commands.add_parser(
        "synthesize",
        help="make the missing contrasts: NIfTI in, NIfTI out",
        usage="hmf synthesize IN OUT [--target t2] [options]\n"
        "       hmf synthesize --t1 FILE --flair FILE --target t2 OUT.nii.gz [options]",
    )
    add = synthesize.add_argument
    add("paths", nargs="+", type=to_path, metavar="IN OUT", help="folder, BIDS dataset, datalist or file; folder")
    add(
        "--target",
        metavar="CONTRAST",
        help=f"what to make: {', '.join(CONTRASTS)} (default: what is missing, but for t1c)",
    )
    add("--sources", nargs="+", metavar="CONTRAST", help="use only these scans, as if the others were missing")
    for name in CONTRASTS:
        add(f"--{name}", type=to_path, metavar="FILE", help=f"a single {name} file, in place of IN")
    add_weights_and_bundle(synthesize)
    add("--config", type=to_path, action="append", default=[], metavar="FILE", help="config laid over inference")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the config")
    add("--overwrite", action="store_true", help="replace outputs that exist")
    add("--skip-existing", action="store_true", help="keep outputs that are as they were written")
    add("--regrid", action="store_true", help="resample sources of other grids onto that of the first")
    add("--space", metavar="native", help="of hmf prepare: on the grid that a scan was acquired on")
    add("--grid-of", metavar="CONTRAST", help="which scan that is (default: the first source)")
    add("--dicom", type=to_path, metavar="DIR", help="in native space: also write DICOM series there; with --study")
    add("--study", type=to_path, metavar="STUDY", help="the DICOM folder or .zip that was prepared")
    add("--series", action="append", default=[], metavar="T1=NAME", help="as given to hmf prepare")
    add("--pseudonyms", type=to_path, metavar="FILE", help="table of hmf prepare (default: IN_pseudonyms.csv)")
    add("--volume", type=to_count, metavar="N", help="which volume of 4-D files, counted from 0")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps (default %(default)s)")
    add("--precision", metavar="NAME", help="auto, fp32 or bf16")
    add("--batch-size", type=int, metavar="N", help="planes at a time (default: what memory holds)")
    add("--no-preview", action="store_true", help="draw no pictures")
    add("--uncertainty", action="store_true", help="also write the expected error of each volume, beside it")
    synthesize.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    import json

    from hmf_networks.engines.synthesis import loose_record, synthesize

    loose = {name: getattr(options, name) for name in CONTRASTS if getattr(options, name) is not None}
    if len(options.paths) != (1 if loose else 2):
        wanted = "one path, the output file" if loose else "two paths, IN and OUT"
        raise ValueError(f"{len(options.paths)} path(s) given, not {wanted}; see hmf synthesize --help")
    output = options.paths[-1]
    if not loose and output.name.lower().endswith((".nii", ".nii.gz")):
        raise ValueError(f"OUT {output} is the name of a file; name a folder, or give files by --t1 and the like")
    if (options.dicom is None) != (options.study is None) or (options.dicom and options.space != "native"):
        raise ValueError("--dicom needs --study, the study that was prepared, and --space native")
    overrides: dict[str, Any] = {
        "overwrite": options.overwrite,
        "skip_existing": options.skip_existing,
        "regrid": options.regrid,
        "preview": not options.no_preview,
    }
    if options.uncertainty:  # a config from elsewhere may not know the key
        overrides["uncertainty"] = True
    for key, option in (
        ("given", "sources"),
        ("volume", "volume"),
        ("space", "space"),
        ("grid_of", "grid_of"),
        ("precision", "precision"),
        ("batch_size", "batch_size"),
    ):
        if getattr(options, option) is not None:
            overrides[key] = getattr(options, option)
    for text in options.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text}: write KEY=VALUE, e.g. --set plane=acquisition")
        try:
            overrides[key] = json.loads(value)
        except ValueError:
            overrides[key] = value
    try:
        synthesize(
            options.bundle or bundle_root(),
            options.weights,
            loose_record(loose, output) if loose else options.paths[0],
            output.parent if loose else output,
            options.target,
            device=options.device,
            config_files=options.config,
            overrides=overrides,
        )
    finally:  # what could be made goes back, whoever else could not
        if options.dicom is not None:
            from hmf_networks.intake.dicom_out import write_dicom

            write_dicom(
                output,
                options.paths[0].expanduser().absolute(),
                options.study,
                options.dicom,
                series=tuple(options.series),
                table=options.pseudonyms,
                overwrite=options.overwrite,
            )
