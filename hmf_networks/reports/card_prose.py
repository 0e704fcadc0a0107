"""Figures in the prose of a model card: each must be one that a table of the results prints, rounded or not.

Prose is what lies outside marked tables, code and comments. A figure is a number before "dB", a decimal after
the word SSIM within its sentence, or a number of seconds before "s".
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

CODE = re.compile(r"^```.*?^```[^\n]*$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
NUMBER = r"(?<![\w.])[+\-\u2212]?(\d+(?:\.\d+)?)"
FIGURES = {
    "dB": re.compile(rf"(?:{NUMBER}\s*(?:to|and|or|-|\u2013)\s*)?{NUMBER}\s*dB\b"),
    "s": re.compile(rf"(?:{NUMBER}\s*(?:to|and|or|-|\u2013)\s*)?{NUMBER}\s*(?:s|sec|seconds)\b"),
}
SSIM_SENTENCE = re.compile(r"SSIM\b((?:[^.\n]|\.(?=\d)|\n(?!\s*\n))*)")
SSIM_FIGURE = re.compile(rf"{NUMBER}(?!\s*(?:dB|mm|%|s\b|seconds))(?![\d.])")
SCORES = re.compile(r"PSNR|SSIM|\bdB\b")


class Figure(NamedTuple):
    unit: str
    quoted: str
    line: int


def prose_of(card: str, tables: Iterable[re.Match[str]]) -> str:
    """The card with tables, code and comments blanked; lines stay where they are."""
    for match in tables:
        card = _blanked(card, match)
    for pattern in (CODE, COMMENT):
        for match in pattern.finditer(card):
            card = _blanked(card, match)
    return card


def figures_in(prose: str) -> Iterator[Figure]:
    """Every figure that must be backed, in order of units."""
    for unit, pattern in FIGURES.items():
        for match in pattern.finditer(prose):
            for group in (1, 2):
                if match[group] is not None:
                    yield Figure(unit, match[group], _line(prose, match.start(group)))
    for sentence in SSIM_SENTENCE.finditer(prose):
        for match in SSIM_FIGURE.finditer(prose, sentence.start(1), sentence.end(1)):
            if "." in match[1] and float(match[1]) <= 1:
                yield Figure("SSIM", match[1], _line(prose, match.start(1)))


def loose_tables(prose: str) -> list[int]:
    """Lines of table heads that speak of scores outside of markers, where nobody keeps them true."""
    lines = prose.splitlines()
    heads = [n for n, line in enumerate(lines[1:], 1) if re.fullmatch(r"\s*\|[\s|:-]+\|\s*", line)]
    return [head for head in heads if SCORES.search(lines[head - 1])]


def backing(tables: Iterable[str]) -> dict[str, set[float]]:
    """Unit -> what the tables print in the columns that speak of it."""
    known: dict[str, set[float]] = {"dB": set(), "s": set(), "SSIM": set()}
    for table in tables:
        rows = [line.strip().strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
        for head, *cells in zip(*rows, strict=True):
            unit = _unit(head)
            if unit is not None:
                numbers = re.findall(NUMBER, " ".join(cells))
                known[unit] |= {float(digits) for digits in numbers}
    return known


def is_backed(figure: Figure, known: Mapping[str, set[float]]) -> bool:
    """Rounded to as many digits as are quoted, without sign."""
    digits = len(figure.quoted.partition(".")[2])
    margin = 0.5 * 10.0**-digits * (1 + 1e-9)
    return any(abs(value - float(figure.quoted)) <= margin for value in known[figure.unit])


def _unit(head: str) -> str | None:
    words = head.split()
    names = {"dB": "dB", "seconds": "s", "SSIM": "SSIM"}
    return next((names[word] for word in reversed(words) if word in names), None)


def _blanked(text: str, match: re.Match[str]) -> str:
    blank = re.sub(r"[^\n]", " ", match[0])
    return text[: match.start()] + blank + text[match.end() :]


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1
