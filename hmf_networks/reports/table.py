"""Scores of many subjects: files, means with bootstrap intervals, and one table that names its protocol.

A row is plain data: {"method", "subject", "protocol", "region", "psnr", "ssim", "nmse", "mae"}, further keys
welcome. Rows read back from the CSV or the JSON are rows again. nan (JSON null, CSV empty) means "no score"
and is left out; inf (in JSON the text "inf", as strict JSON has no infinity) is a score.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hmf_networks.atomic import write_whole

KEYS = ("method", "subject", "protocol", "region")
METRICS = ("psnr", "ssim", "nmse", "mae")
CONFIDENCE = 0.95

Row = Mapping[str, Any]


def write_scores(rows: Sequence[Row], csv_path: str | Path, json_path: str | Path) -> None:
    """Write the rows as CSV, and rows with their summary as JSON; each file appears whole or not at all."""
    extras = dict.fromkeys(key for row in rows for key in row if key not in (*KEYS, *METRICS))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=[*KEYS, *extras, *METRICS], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_strict(rows))
    content = _strict({"confidence": CONFIDENCE, "rows": rows, "summary": summarise(rows)})
    json_text = (
        json.dumps(content, indent=1, allow_nan=False) + "\n"
    )  # may refuse: before anything is written
    write_whole(csv_path, text.getvalue())
    write_whole(json_path, json_text)


def summarise(rows: Iterable[Row], num_resamples: int = 2000, seed: int = 0) -> list[dict[str, Any]]:
    """Mean and 95 % subject-bootstrap interval of each method, protocol and region, in order of appearance.

    Returns [{"method", "protocol", "region", "num_subjects", "psnr": {"mean", "low", "high"}, ...}, ...].
    Rows of one subject are averaged first: a subject counts once. With one subject the interval is nan.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["protocol"], row["region"]), []).append(row)
    summary = []
    for (method, protocol, region), members in groups.items():
        scores = {metric: _subject_means(members, metric) for metric in METRICS}
        entry: dict[str, Any] = {"method": method, "protocol": protocol, "region": region}
        entry["num_subjects"] = max(len(values) for values in scores.values())
        for metric, values in scores.items():
            entry[metric] = _mean_and_interval(values, num_resamples=num_resamples, seed=seed)
        summary.append(entry)
    return summary


def format_table(summary: Sequence[Row], protocol: str = "volume", region: str = "brain") -> str:
    """Aligned Markdown, one line a method, under a heading that names protocol, region and subjects."""
    entries = [entry for entry in summary if (entry["protocol"], entry["region"]) == (protocol, region)]
    if not entries:
        present = sorted({f"{entry['protocol']}/{entry['region']}" for entry in summary})
        raise ValueError(
            f"no scores for {protocol}/{region}; there are {', '.join(present) or 'none at all'}"
        )
    heading = f"Protocol {protocol}, region {region}, {_count_subjects(entries)}"
    lines = [["method", "PSNR dB", "PSNR 95 % interval", "SSIM", "NMSE", "MAE"]]
    for entry in entries:
        psnr, ssim, nmse, mae = (entry[metric] for metric in METRICS)
        figures = [_figure(psnr["mean"], 2), _interval(psnr, 2)]
        figures += [_figure(ssim["mean"], 4), _figure(nmse["mean"], 4), _figure(mae["mean"], 4)]
        lines.append([str(entry["method"]).replace("|", "\\|"), *figures])
    return f"{heading}\n\n{_aligned(lines)}\n"


def _subject_means(rows: Sequence[Row], metric: str) -> np.ndarray:
    """One value a subject, sorted by subject so that the order of the rows does not matter; nan left out."""
    values: dict[str, list[float]] = {}
    for row in rows:
        value = _number(row.get(metric))
        if not math.isnan(value):
            values.setdefault(str(row["subject"]), []).append(value)
    return np.array([np.mean(np.sort(values[subject])) for subject in sorted(values)])


def _mean_and_interval(values: np.ndarray, *, num_resamples: int, seed: int) -> dict[str, float]:
    """The same seed for every group: methods with the same subjects are resampled alike."""
    if len(values) < 2:
        return {"mean": float(values[0]) if len(values) else math.nan, "low": math.nan, "high": math.nan}
    picks = np.random.default_rng(seed).integers(len(values), size=(num_resamples, len(values)))
    tail = (1 - CONFIDENCE) / 2
    # inverted_cdf picks one of the means; interpolation would make nan out of two that are inf
    low, high = np.quantile(values[picks].mean(axis=1), [tail, 1 - tail], method="inverted_cdf")
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def _count_subjects(entries: Sequence[Row]) -> str:
    fewest, most = min(e["num_subjects"] for e in entries), max(e["num_subjects"] for e in entries)
    if fewest < most:
        return f"{fewest} to {most} subjects (the methods were not scored on the same subjects)"
    return f"{most} subject{'' if most == 1 else 's'}"


def _figure(value: Any, digits: int) -> str:
    number = _number(value)
    return "-" if math.isnan(number) else f"{number:.{digits}f}"


def _interval(score: Row, digits: int) -> str:
    low, high = (_figure(score[end], digits) for end in ("low", "high"))
    return "-" if "-" in (low, high) else f"{low} to {high}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Methods to the left, figures to the right, as Markdown."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    cells = [
        [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        for line in (lines[0], rule, *lines[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _number(value: Any) -> float:
    return math.nan if value is None or value == "" else float(value)


def _strict(value: Any) -> Any:
    """The same data with what strict JSON cannot say replaced: nan by null, inf by "inf"."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(float(value))
    return value
