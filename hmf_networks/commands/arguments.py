"""What the commands share: types of arguments, and the parser that says what was probably meant."""

import argparse
import sys
from pathlib import Path
from typing import Any

from hmf_networks.naming import unknown_word

Commands = Any  # argparse has no public name for what add_subparsers returns


class Parser(argparse.ArgumentParser):
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


def to_path(text: str) -> Path:
    """An empty one, of a variable that is not set, would be the folder one happens to be in."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def to_count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not 0, 1, 2 ...")
    return int(text)


def add_weights_and_bundle(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--weights", type=to_path, metavar="FILE", help="model.pt, with its model.json (default: the bundle's)"
    )
    command.add_argument(
        "--bundle", type=to_path, metavar="DIR", help="folder of the bundle (default: the package's own)"
    )
