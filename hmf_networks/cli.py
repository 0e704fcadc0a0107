"""The `hmf` command: one sub-command, one short function. Heavy packages are imported where needed.

Exit codes: 0 all done; 1 the command could not run, a misspelt option included; 2 some subjects failed.
"""

import argparse
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hmf_networks import __version__
from hmf_networks.bundles.find import bundle_root
from hmf_networks.naming import CONTRASTS, printable, unknown_word
from hmf_networks.outputs.failure import SubjectsFailed

logger = logging.getLogger(__name__)

Commands = Any  # argparse has no public name for what add_subparsers returns


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; 0 all done, 1 it could not run, 2 some subjects failed and were named."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold bytes that are no letters
            stream.reconfigure(errors="backslashreplace")
    logging.raiseExceptions = False  # `| head` closes what is logged to
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except SubjectsFailed as error:
        sys.stderr.write(f"hmf {options.command}: {error}\n")
        return 2
    except (ValueError, OSError, ImportError) as error:
        sys.stderr.write(f"hmf {options.command}: {error}\n")
        return 1


class _Parser(argparse.ArgumentParser):
    """Says what was probably meant; a sub-command complains itself, as only it knows its options."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{"allow_abbrev": False} | arguments)
        self._is_inner = False

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        if self._is_inner or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._is_inner = True  # what follows calls this method
        known, unknown = self.parse_known_intermixed_args(args, namespace)  # IN --target t2 OUT
        self._is_inner = False
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> None:  # type: ignore[override]
        known = [option for action in self._actions for option in action.option_strings]
        wrong = message.removeprefix("unrecognized arguments: ").split()
        if "invalid choice: " in message and self._subparsers is not None:
            choices = self._subparsers._group_actions[0].choices
            word = message.partition("invalid choice: ")[2].partition(" (choose")[0]
            message = unknown_word("command", word.strip("'\""), choices or ())
        if message.startswith("unrecognized arguments") and wrong[0].startswith("-"):
            message = unknown_word("option", wrong[0], known)
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: error: {message}\n")


def _path(text: str) -> Path:
    """An empty one, of a variable that is not set, would be the folder one happens to be in."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not 0, 1, 2 ...")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="hmf", description="Fill in the missing MRI contrast.")
    parser.add_argument(
        "--version", action="version", version=f"hmf {__version__} - research only, not a medical device"
    )
    commands: Commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )

    for add in (
        _add_simulate,
        _add_check,
        _add_synthesize,
        _add_evaluate,
        _add_picture,
        _add_card,
        _add_pack,
        _add_lint_bundle,
        _add_cost,
        _add_info,
        _add_doctor,
    ):
        add(commands)
    return parser


def _add_simulate(commands: Commands) -> None:
    simulate = commands.add_parser("simulate", help="write simulated patients as NIfTI")
    add = simulate.add_argument
    add("output_dir", type=_path, metavar="OUT")
    add("--subjects", type=int, default=8, metavar="N", help="number of patients (default %(default)s)")
    add("--seed", type=int, default=0, metavar="S", help="same seed, same files (default %(default)s)")
    add("--layout", default="brats", help="brats, ixi or bids (default %(default)s)")
    add("--spacing", type=float, default=1.0, metavar="MM", help="voxel size (default %(default)s mm)")
    add(
        "--labels",
        type=_path,
        nargs="+",
        metavar="PATH",
        help="label maps of whole heads, files or a folder: writes OUT/scans and OUT/truth",
    )
    add("--thickness", type=float, metavar="MM", help="of the slices, with --labels (default: --spacing)")
    add(
        "--stripped",
        type=float,
        default=0.6,
        metavar="SHARE",
        help="with --labels: of patients without skull (default %(default)s)",
    )
    simulate.set_defaults(run=_simulate)


def _simulate(options: argparse.Namespace) -> None:
    common = {
        "num_subjects": options.subjects,
        "seed": options.seed,
        "layout": options.layout,
        "spacing_mm": options.spacing,
    }
    if options.labels:
        from hmf_networks.data.head_phantom import simulate_heads
        from hmf_networks.data.label_maps import label_maps_of
        from hmf_networks.transforms.simulate import LoadHeadd

        load, records = LoadHeadd(), label_maps_of(options.labels)[: options.subjects]
        more = {"thickness_mm": options.thickness, "stripped_share": options.stripped}
        simulate_heads(
            options.output_dir, [load(dict(record))["head"] for record in records], **common, **more
        )
    else:
        from hmf_networks.data.phantom import simulate_subjects

        if options.thickness is not None:
            raise ValueError("--thickness goes with --labels; the other simulator has cubic voxels")
        simulate_subjects(options.output_dir, **common)
    logger.info("%d simulated subjects in %s", options.subjects, options.output_dir)


def _add_check(commands: Commands) -> None:
    check = commands.add_parser(
        "check",
        help="judge every file and subject, change nothing",
        description="Judge every file and subject; nothing is changed.",
        epilog="Ends with 0 where all is well, even if a file has warnings; with 2 where a file cannot be "
        "used or something speaks against a subject (a shift, a mirrored or exchanged contrast, a copy); "
        "with 1 where nothing could be checked.",
    )
    check.add_argument("path", type=_path, metavar="PATH", help="file, folder, BIDS dataset or datalist")
    check.add_argument("--json", action="store_true", help="print the report as JSON")
    check.add_argument("--volume", type=_count, metavar="N", help="which volume of 4-D files, counted from 0")
    check.add_argument("--max-voxels", type=int, metavar="N", help="larger files are refused (default 2^28)")
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    import json

    from hmf_networks.data.check import check_path, summary

    limit = {} if options.max_voxels is None else {"max_voxels": options.max_voxels}
    report = check_path(options.path, volume=options.volume, **limit)
    logger.info("%s", json.dumps(report, indent=1) if options.json else summary(report))
    is_wrong = any(entry["verdict"] == "reject" for entry in report["files"])
    return 2 if is_wrong or any(entry["verdict"] != "accept" for entry in report["subjects"]) else 0


def _add_synthesize(commands: Commands) -> None:
    synthesize = commands.add_parser(
        "synthesize",
        help="make the missing contrasts: NIfTI in, NIfTI out",
        usage="hmf synthesize IN OUT [--target t2] [options]\n"
        "       hmf synthesize --t1 FILE --flair FILE --target t2 OUT.nii.gz [options]",
    )
    add = synthesize.add_argument
    add(
        "paths",
        nargs="+",
        type=_path,
        metavar="IN OUT",
        help="folder, BIDS dataset, datalist or file; folder",
    )
    add(
        "--target",
        metavar="CONTRAST",
        help=f"what to make: {', '.join(CONTRASTS)} (default: what is missing, but for t1c)",
    )
    add(
        "--sources", nargs="+", metavar="CONTRAST", help="use only these scans, as if the others were missing"
    )
    for name in CONTRASTS:
        add(f"--{name}", type=_path, metavar="FILE", help=f"a single {name} file, in place of IN")
    add("--weights", type=_path, metavar="FILE", help="model.pt, with its model.json (default: the bundle's)")
    add(
        "--bundle",
        type=_path,
        metavar="DIR",
        help="folder of the bundle (default: the package's own)",
    )
    add(
        "--config", type=_path, action="append", default=[], metavar="FILE", help="config laid over inference"
    )
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key of the config")
    add("--overwrite", action="store_true", help="replace outputs that exist")
    add("--skip-existing", action="store_true", help="keep outputs that are as they were written")
    add("--regrid", action="store_true", help="resample sources of other grids onto that of the first")
    add("--volume", type=_count, metavar="N", help="which volume of 4-D files, counted from 0")
    add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps (default %(default)s)")
    add("--precision", metavar="NAME", help="auto, fp32 or bf16")
    add("--batch-size", type=int, metavar="N", help="planes at a time (default: what memory holds)")
    add("--no-preview", action="store_true", help="draw no pictures")
    add("--uncertainty", action="store_true", help="also write the expected error of each volume, beside it")
    synthesize.set_defaults(run=_synthesize)


def _synthesize(options: argparse.Namespace) -> None:
    import json

    from hmf_networks.engines.synthesis import loose_record, synthesize

    loose = {name: getattr(options, name) for name in CONTRASTS if getattr(options, name) is not None}
    if len(options.paths) != (1 if loose else 2):
        wanted = "one path, the output file" if loose else "two paths, IN and OUT"
        raise ValueError(f"{len(options.paths)} path(s) given, not {wanted}; see hmf synthesize --help")
    output = options.paths[-1]
    if not loose and output.name.lower().endswith((".nii", ".nii.gz")):
        raise ValueError(
            f"OUT {output} is the name of a file; name a folder, or give files by --t1 and the like"
        )
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


def _add_evaluate(commands: Commands) -> None:
    evaluate = commands.add_parser("evaluate", help="score synthesised volumes against the true ones")
    evaluate.add_argument(
        "predictions",
        type=_path,
        metavar="PREDICTIONS",
        help="folder as `synthesize` writes it, or one NIfTI",
    )
    evaluate.add_argument(
        "truth", type=_path, metavar="TRUTH", help="dataset folder, datalist, or one NIfTI file"
    )
    evaluate.add_argument("--target", required=True, metavar="CONTRAST", help="what was synthesised, e.g. t2")
    evaluate.add_argument(
        "--output", type=_path, metavar="DIR", help="for scores.csv, scores.json, errors.json, worst/*.png"
    )
    evaluate.add_argument(
        "--against",
        type=_path,
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
    evaluate.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
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


def _add_picture(commands: Commands) -> None:
    picture = commands.add_parser("picture", help="draw volumes of one grid in three planes, one column each")
    picture.add_argument("volumes", nargs="+", metavar="NAME=FILE", help="caption and NIfTI file")
    picture.add_argument("--output", type=_path, required=True, metavar="PNG")
    picture.set_defaults(run=_picture)


def _picture(options: argparse.Namespace) -> None:
    from hmf_networks.reports.picture import draw_files

    pairs = [text.partition("=") for text in options.volumes]
    for name, equals, path in pairs:
        if not equals or not path:
            raise ValueError(f"{name!r} is not NAME=FILE, e.g. t2=patient_t2.nii.gz")
    draw_files({name: path for name, _, path in pairs}, options.output)
    logger.info("picture: %s", options.output)


def _add_card(commands: Commands) -> None:
    card = commands.add_parser(
        "card",
        help="hold the bundle's model card to what was measured",
        description="Tables of the model card come from results files; its other figures must be in them.",
        epilog="Ends with 0 where all agree, with 2 where something does not: it is named with its line.",
    )
    wanted = card.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--check", action="store_true", help="change nothing")
    wanted.add_argument("--write", action="store_true", help="fill tables and eval_metrics, then check")
    card.add_argument("--bundle", type=_path, metavar="DIR", help="default: the package's own")
    card.add_argument("--results", type=_path, metavar="DIR", help="default: docs/results beside the bundle")
    card.set_defaults(run=_card)


def _card(options: argparse.Namespace) -> int:
    from hmf_networks.reports.model_card import check_card, write_card

    bundle = options.bundle or bundle_root()
    results = options.results or bundle.parent / "docs" / "results"
    if options.write:
        write_card(bundle, results)
    faults = check_card(bundle, results)
    for fault in faults:
        sys.stderr.write(f"hmf card: {fault}\n")
    return 2 if faults else 0


def _add_pack(commands: Commands) -> None:
    pack = commands.add_parser(
        "pack",
        help="assemble the bundle for the model zoo: a folder and its zip",
        description="Assemble the bundle with this package inside, check it, tell what the zoo wants.",
    )
    pack.add_argument("--output", type=_path, default=Path("dist"), metavar="DIR", help="default: dist")
    pack.add_argument("--bundle", type=_path, metavar="DIR", help="default: the package's own")
    pack.add_argument("--overwrite", action="store_true", help="replace folder and zip that are there")
    pack.set_defaults(run=_pack)


def _pack(options: argparse.Namespace) -> None:
    from hmf_networks.bundles.pack import for_the_zoo, pack

    packed = pack(options.output, options.bundle or bundle_root(), overwrite=options.overwrite)
    logger.info("%s\n%s\n%s", packed.folder, packed.archive, for_the_zoo(packed))


def _add_lint_bundle(commands: Commands) -> None:
    lint = commands.add_parser(
        "lint-bundle",
        help="what in a MONAI bundle would run code",
        description="Read a MONAI bundle, folder or zip, and name what would run code beyond a short list of "
        "allowed names, or leave the bundle. Nothing in it is imported, evaluated, unpickled or unpacked.",
        epilog="Ends with 0 where there is nothing, with 2 where there is: look at it first.",
    )
    lint.add_argument("path", type=_path, metavar="PATH", help="folder of a bundle, or its zip")
    lint.add_argument("--json", action="store_true", help="print the findings as JSON")
    lint.set_defaults(run=_lint_bundle)


def _lint_bundle(options: argparse.Namespace) -> int:
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


def _add_cost(commands: Commands) -> None:
    cost = commands.add_parser("cost", help="parameters and multiply-accumulates of a network")
    cost.add_argument(
        "--width", type=int, default=64, help="channels of the first stage (default %(default)s)"
    )
    cost.add_argument(
        "--sources", type=int, default=2, metavar="S", help="source contrasts (default %(default)s)"
    )
    cost.add_argument(
        "--size", type=int, nargs=2, default=(256, 256), metavar=("H", "W"), help="plane (default 256 256)"
    )
    cost.set_defaults(run=_cost)


def _cost(options: argparse.Namespace) -> None:
    from hmf_networks.nets import HMFMambaINR
    from hmf_networks.reports.cost import network_cost

    network = HMFMambaINR(spatial_dims=2, in_channels=options.sources, out_channels=1, width=options.width)
    cost = network_cost(network, (1, options.sources, *options.size))
    logger.info(
        "HMFMambaINR, width %d, input 1 x %d x %d x %d", options.width, options.sources, *options.size
    )
    logger.info("%.2f M parameters, %.1f GMACs", cost["parameters"] / 1e6, cost["macs"] / 1e9)
    logger.info(
        "(torch.utils.flop_counter: matrix products and convolutions; the scan recurrence is not counted)"
    )


def _add_info(commands: Commands) -> None:
    info = commands.add_parser("info", help="version, contrasts, folder layouts, weights")
    info.add_argument("--json", action="store_true", help="the same as JSON")
    info.set_defaults(run=_info)


def _info(options: argparse.Namespace) -> None:
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


def _add_doctor(commands: Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="what is installed, and whether it works together",
        epilog="Ends with 0 where all is well, with 2 where something is not: the cure is named.",
    )
    doctor.set_defaults(run=_doctor)


def _doctor(_options: argparse.Namespace) -> int:
    from hmf_networks.doctor import examine

    checks = list(examine(bundle_root()))
    for check in checks:
        logger.info("%s", check)
    return 2 if any(check.cure for check in checks) else 0
