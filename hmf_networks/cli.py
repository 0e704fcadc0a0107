"""The `hmf` command: one sub-command, one file of `commands/`. Heavy packages are imported where needed.

Exit codes: 0 all done; 1 the command could not run, a misspelt option included; 2 some subjects failed.
"""

import argparse
import io
import logging
import sys
from collections.abc import Sequence

from hmf_networks import __version__
from hmf_networks.commands import (
    card,
    check,
    compare,
    cost,
    doctor,
    evaluate,
    export,
    info,
    lint_bundle,
    pack,
    picture,
    prepare,
    simulate,
    synthesize,
)
from hmf_networks.commands.arguments import Commands, Parser
from hmf_networks.outputs.failure import SubjectsFailed

COMMANDS = (
    simulate,
    check,
    prepare,
    synthesize,
    evaluate,
    compare,
    picture,
    card,
    pack,
    export,
    lint_bundle,
    cost,
    info,
    doctor,
)


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


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="hmf", description="Fill in the missing MRI contrast.")
    parser.add_argument(
        "--version", action="version", version=f"hmf {__version__} - research only, not a medical device"
    )
    commands: Commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        command.add_to(commands)
    return parser
