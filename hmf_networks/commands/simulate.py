"""`hmf simulate`: patients who do not exist, as NIfTI."""

import argparse
import logging

from hmf_networks.commands.arguments import Commands, to_path

logger = logging.getLogger(__name__)


def add_to(commands: Commands) -> None:
    simulate = commands.add_parser("simulate", help="write simulated patients as NIfTI")
    add = simulate.add_argument
    add("output_dir", type=to_path, metavar="OUT")
    add("--subjects", type=int, default=8, metavar="N", help="number of patients (default %(default)s)")
    add("--seed", type=int, default=0, metavar="S", help="same seed, same files (default %(default)s)")
    add("--layout", default="brats", help="brats, ixi or bids (default %(default)s)")
    add("--spacing", type=float, default=1.0, metavar="MM", help="voxel size (default %(default)s mm)")
    add(
        "--labels",
        type=to_path,
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
    simulate.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
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
        simulate_heads(options.output_dir, [load(dict(record))["head"] for record in records], **common, **more)
    else:
        from hmf_networks.data.phantom import simulate_subjects

        if options.thickness is not None:
            raise ValueError("--thickness goes with --labels; the other simulator has cubic voxels")
        simulate_subjects(options.output_dir, **common)
    logger.info("%d simulated subjects in %s", options.subjects, options.output_dir)
