"""Files that `logging.config.fileConfig` reads: it evaluates `class` and `args` of every handler."""

import ast
import configparser
from collections.abc import Iterator

from hmf_networks.bundles.finding import Finding

HANDLERS = {"StreamHandler", "NullHandler", "logging.StreamHandler", "logging.NullHandler"}
STREAMS = {"()", "", "(sys.stdout,)", "(sys.stderr,)", "(sys.stdout, )", "(sys.stderr, )"}
OPTIONS = {
    "keys",
    "level",
    "handlers",
    "propagate",
    "qualname",
    "class",
    "args",
    "formatter",
    "format",
    "datefmt",
    "style",
}


def lint_logging(name: str, content: bytes) -> Iterator[Finding]:
    settings = configparser.RawConfigParser()
    try:
        settings.read_string(content.decode("utf-8"))
    except (configparser.Error, ValueError) as error:
        yield Finding(name, "", "logging", f"cannot be read ({' '.join(str(error).split())})")
        return
    for section in settings.sections():
        for option, value in settings.items(section):
            place = f"{section}.{option}"
            if option not in OPTIONS:
                yield Finding(name, place, "logging", value)
            elif option == "class" and value not in HANDLERS:
                yield Finding(name, place, "logging", f"{value} is no plain handler")
            elif option == "args" and value.strip() not in STREAMS:
                yield Finding(name, place, "logging", f"{value} is evaluated")
            elif option in ("level", "propagate", "style") and not _is_plain(value):
                yield Finding(name, place, "logging", value)
    for option, value in settings.defaults().items():
        yield Finding(name, f"DEFAULT.{option}", "logging", value)


def _is_plain(value: str) -> bool:
    if value.isalnum() or value in "%{$":
        return True
    try:
        return isinstance(ast.literal_eval(value), int)
    except (ValueError, SyntaxError):
        return False
