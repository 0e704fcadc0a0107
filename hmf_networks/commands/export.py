"""`hmf export`: the network with its weights as a file for other runtimes."""

import argparse
import logging

from hmf_networks.bundles.find import bundle_root
from hmf_networks.commands.arguments import Commands, add_weights_and_bundle, to_path

logger = logging.getLogger(__name__)


def add_to(commands: Commands) -> None:
    export = commands.add_parser(
        "export",
        help="write the network with its weights as TorchScript, ONNX or OpenVINO",
        description="Write the network with its weights for another runtime, then ask that runtime and the "
        "network at two sizes, compare what they say and how long they take.",
        epilog="ONNX and OpenVINO: pip install 'hmf-networks[export]'.",
    )
    add = export.add_argument
    add("output", type=to_path, nargs="?", metavar="FILE", help="default: models/model.ts, .onnx or .xml")
    add("--format", default="torchscript", metavar="NAME", help="torchscript, onnx or openvino")
    add_weights_and_bundle(export)
    add("--overwrite", action="store_true", help="replace a file that exists")
    export.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from hmf_networks.engines.export import export

    bundle = options.bundle or bundle_root()
    weights = options.weights or bundle / "models" / "model.pt"
    path, found = export(bundle, weights, options.format, options.output, overwrite=options.overwrite)
    for (batch, height, width), difference in found.differences.items():
        logger.info("%d x %d x %d: differs by at most %.1e", batch, height, width, difference)
    logger.info("a plane in %.3f s, %.2f times as long as in torch", found.seconds, found.times_eager)
    logger.info("%s: %s", options.format, path)
