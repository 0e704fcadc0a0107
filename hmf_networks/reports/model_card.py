"""A model card that says what was measured and nothing else: results files make its tables, back its figures.

A table lies between `<!-- results: NAME [VIEW] -->` and `<!-- end -->`, see `results.VIEWS`; without its file
it says NOT_YET. The `eval_metrics` of metadata.json come from the same files.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from hmf_networks.atomic import write_whole
from hmf_networks.hashing import file_hash
from hmf_networks.reports.card_prose import backing, figures_in, is_backed, loose_tables, prose_of
from hmf_networks.reports.card_table import NETWORK, card_table, score_entries
from hmf_networks.reports.results import OTHER_WEIGHTS, VIEWS, Results, read_results, view_of, weights_hash
from hmf_networks.reports.table import number

NOT_YET = "Not measured yet."
OPEN, CLOSE = "<!-- results:", "<!-- end -->"
BLOCK = re.compile(r"<!-- results: (?P<what>[^\n]+?) -->\n(?P<table>.*?)<!-- end -->", re.DOTALL)
METRICS = '"eval_metrics":'
IN_METADATA = ("held_out", "simulated")


def check_card(bundle: Path, results_dir: Path) -> list[str]:
    """What is wrong, a line each; empty where card, metadata, weights and results agree.

    Raises:
        ValueError, OSError: one of the files cannot be used.
    """
    results = read_results(results_dir)
    return [
        *_wrong_tables(_card_path(bundle), results),
        *_wrong_figures(_card_path(bundle), results),
        *_wrong_metrics(_metadata_path(bundle), results),
        *_hasty_runs(results_dir, results),
        *_wrong_weights(bundle / "models" / "model.pt", results_dir, results),
    ]


def write_card(bundle: Path, results_dir: Path) -> None:
    """Fill the card's tables and metadata's `eval_metrics`; nothing else in them changes.

    Raises:
        ValueError, OSError: one of the files cannot be used, or a marker names no results.
    """
    results = read_results(results_dir)
    path, metadata_path = _card_path(bundle), _metadata_path(bundle)
    card = _checked_markers(path)
    filled = BLOCK.sub(lambda match: _block(match["what"], results), card)
    metadata, start, end = _metrics_in(metadata_path)
    metrics = json.dumps(eval_metrics(results), indent=4).replace("\n", "\n    ")
    write_whole(path, filled)
    write_whole(metadata_path, metadata[:start] + metrics + metadata[end:])


def eval_metrics(results: Results) -> dict[str, Any]:
    """The network in the brain, protocol `volume`: {file: {who: {task: {"psnr_db", "ssim", ...}}}}."""
    metrics: dict[str, Any] = {}
    for name in IN_METADATA:
        for who, brain, _ in score_entries(results[name], "volume") if name in results else ():
            if brain["method"] == NETWORK:
                scores = {
                    "psnr_db": round(number(brain["psnr"]["mean"]), 2),
                    "ssim": round(number(brain["ssim"]["mean"]), 3),
                }
                of_task = {**scores, "num_subjects": brain["num_subjects"]}
                metrics.setdefault(name, {}).setdefault(who, {})[brain["task"]] = of_task
    return metrics


def _wrong_tables(path: Path, results: Results) -> Iterator[str]:
    card = _checked_markers(path)
    for match in BLOCK.finditer(card):
        wanted = _table(match["what"], results)
        line = card.count("\n", 0, match.start("table")) + 1
        if match["table"].strip() == NOT_YET and wanted != NOT_YET:
            yield f"{path}:{line}: {NOT_YET!r}, but there are results for {match['what']!r}; hmf card --write"
        elif wanted == NOT_YET and match["table"].strip() != NOT_YET:
            name = view_of(match["what"])[0]
            yield f"{path}:{line}: a table of {match['what']!r}, but there is no {name}.json"
        elif (difference := _first_difference(match["table"], wanted)) is not None:
            offset, says, gives = difference
            what = f"the card says {says or 'nothing'}, the results give {gives or 'nothing'}"
            yield f"{path}:{line + offset}: {what} ({match['what']}); hmf card --write"


def _wrong_figures(path: Path, results: Results) -> Iterator[str]:
    card = path.read_text(encoding="utf-8")
    prose = prose_of(card, list(BLOCK.finditer(card)))
    known = backing(_all_tables(results))
    for figure in figures_in(prose):
        if not is_backed(figure, known):
            said = f"SSIM {figure.quoted}" if figure.unit == "SSIM" else f"{figure.quoted} {figure.unit}"
            yield f"{path}:{figure.line}: {said} is in no table of the results"
    for line in loose_tables(prose):
        yield f"{path}:{line}: a table of scores outside of '{OPEN} ... -->'; nobody keeps it true"


def _wrong_metrics(path: Path, results: Results) -> Iterator[str]:
    text, start, end = _metrics_in(path)
    says, gives = _flat(json.loads(text[start:end])), _flat(eval_metrics(results))
    line = text.count("\n", 0, start) + 1
    for key in dict.fromkeys((*says, *gives)):
        if says.get(key) != gives.get(key):
            values = f"{says.get(key, 'nothing')}, the results give {gives.get(key, 'nothing')}"
            yield f"{path}:{line}: eval_metrics, {key}: it says {values}; hmf card --write"
            return


def _hasty_runs(results_dir: Path, results: Results) -> Iterator[str]:
    for name, content in results.items():
        settings = content.get("settings")
        if isinstance(settings, dict) and settings.get("fast"):
            yield f"{results_dir / name}.json: measured with --fast, to see that it works; measure in full"


def _wrong_weights(weights: Path, results_dir: Path, results: Results) -> Iterator[str]:
    if not weights.is_file():
        return
    shipped = file_hash(weights)
    for name, content in results.items():
        measured = weights_hash(content)
        if name not in OTHER_WEIGHTS and measured != shipped:
            of = f"weights {measured[:8]}..." if measured else "weights that it does not name"
            yield f"{results_dir / name}.json: measured of {of}, {weights} is {shipped[:8]}...; measure again"


def _table(what: str, results: Results) -> str:
    name, view = view_of(what)
    if name not in results:
        return NOT_YET
    try:
        return card_table(results[name], view)
    except ValueError as error:
        raise ValueError(f"{name}.json: {error}") from error


def _all_tables(results: Results) -> Iterator[str]:
    """Those that can be made: a run that was cut short has not all of them."""
    for name, content in results.items():
        for view in VIEWS[name]:
            with contextlib.suppress(ValueError):
                yield card_table(content, view)


def _block(what: str, results: Results) -> str:
    return f"{OPEN} {what} -->\n\n{_table(what, results)}\n\n{CLOSE}"


def _checked_markers(path: Path) -> str:
    """The card; ValueError where a marker is not closed or names no results."""
    card = path.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(card))
    if card.count(OPEN) != len(blocks) or any(OPEN in match["table"] for match in blocks):
        raise ValueError(f"{path}: a marker '{OPEN} NAME -->' without its {CLOSE!r}")
    for match in blocks:
        try:
            view_of(match["what"])
        except ValueError as error:
            raise ValueError(f"{path}:{card.count(chr(10), 0, match.start()) + 1}: {error}") from None
    return card


def _first_difference(found: str, wanted: str) -> tuple[int, str, str] | None:
    """Line, and the first cells that differ but for spaces; lines are counted in what was found."""
    ours = [(number, line) for number, line in enumerate(found.splitlines()) if line.strip()]
    theirs = [line for line in wanted.splitlines() if line.strip()]
    last = ours[-1][0] if ours else 0
    for mine, other in zip_longest(ours, theirs):
        number, line = mine or (last, "")
        for cell, right in zip_longest(_cells(line), _cells(other or ""), fillvalue=""):
            if cell != right:
                return number, cell, right
    return None


def _cells(line: str) -> list[str]:
    """Rules between head and body are alike however long they are."""
    cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
    return ["-" if re.fullmatch("-+:?", cell) else cell for cell in cells]


def _flat(content: Any, above: str = "") -> dict[str, Any]:
    if not isinstance(content, dict):
        return {above: content}
    return {
        key: value for name, part in content.items() for key, value in _flat(part, f"{above} {name}".strip()).items()
    }


def _metrics_in(path: Path) -> tuple[str, int, int]:
    """metadata.json, and where in it the value of `eval_metrics` begins and ends."""
    text = path.read_text(encoding="utf-8")
    place = text.find(METRICS)
    if place < 0:
        raise ValueError(f"{path} has no {METRICS}; put {METRICS} {{}} into it")
    start = text.index("{", place)
    _, end = json.JSONDecoder().raw_decode(text, start)
    return text, start, end


def _card_path(bundle: Path) -> Path:
    return bundle / "docs" / "README.md"


def _metadata_path(bundle: Path) -> Path:
    return bundle / "configs" / "metadata.json"
