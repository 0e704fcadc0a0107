"""Scores of many subjects: files, means with bootstrap intervals, and one table that names its protocol.

A row is plain data: {"method", "subject", "protocol", "region", "psnr", "ssim", "ms_ssim", "nmse", "mae"},
further keys welcome. Rows read back from the CSV or the JSON are rows again, those of older files without
"ms_ssim" too. nan (JSON null, CSV empty) means "no score" and is left out; inf (in JSON the text "inf", as
strict JSON has no infinity) is a score.
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
METRICS = ("psnr", "ssim", "ms_ssim", "nmse", "mae")  # those of `hmf_networks.metrics`, which loads torch
LABELS = {"psnr": "PSNR dB", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "nmse": "NMSE", "mae": "MAE"}
DIGITS = {"psnr": 2} | dict.fromkeys(("ssim", "ms_ssim", "nmse", "mae"), 4)
NO_SCORE = {"mean": math.nan, "low": math.nan, "high": math.nan}
CONFIDENCE = 0.95

Row = Mapping[str, Any]


def write_scores(rows: Sequence[Row], csv_path: str | Path, json_path: str | Path, *, more: Row | None = None) -> None:
    """Write the rows as CSV, and rows, their summary and `more` as JSON; each file whole or not at all."""
    extras = dict.fromkeys(key for row in rows for key in row if key not in (*KEYS, *METRICS))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=[*KEYS, *extras, *METRICS], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(strict(rows))
    content = strict({"confidence": CONFIDENCE, "rows": rows, "summary": summarise(rows), **(more or {})})
    json_text = json.dumps(content, indent=1, allow_nan=False) + "\n"  # may refuse: before anything is written
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
        scores = {metric: [*subject_means(members, metric).values()] for metric in METRICS}
        entry: dict[str, Any] = {"method": method, "protocol": protocol, "region": region}
        entry["num_subjects"] = max(len(values) for values in scores.values())
        for metric, values in scores.items():
            entry[metric] = mean_and_interval(np.array(values), num_resamples=num_resamples, seed=seed)
        summary.append(entry)
    return summary


def format_table(summary: Sequence[Row], protocol: str = "volume", region: str = "brain") -> str:
    """Aligned Markdown, one line a method, under a heading that names protocol, region and subjects."""
    entries = [entry for entry in summary if (entry["protocol"], entry["region"]) == (protocol, region)]
    if not entries:
        present = sorted({f"{entry['protocol']}/{entry['region']}" for entry in summary})
        raise ValueError(f"no scores for {protocol}/{region}; there are {', '.join(present) or 'none at all'}")
    heading = f"Protocol {protocol}, region {region}, {_count_subjects(entries)}"
    psnr, *others = METRICS
    lines = [["method", LABELS[psnr], "PSNR 95 % interval", *(LABELS[metric] for metric in others)]]
    for entry in entries:
        figures = [figure(entry[psnr]["mean"], DIGITS[psnr]), _interval(entry[psnr], DIGITS[psnr])]
        figures += [figure(entry.get(metric, NO_SCORE)["mean"], DIGITS[metric]) for metric in others]
        lines.append([str(entry["method"]).replace("|", "\\|"), *figures])
    return f"{heading}\n\n{aligned(lines)}\n"


def subject_means(rows: Iterable[Row], metric: str) -> dict[str, float]:
    """Subject -> mean of its rows, sorted so that the order of rows does not matter; nan left out."""
    values: dict[str, list[float]] = {}
    for row in rows:
        value = number(row.get(metric))
        if not math.isnan(value):
            values.setdefault(str(row["subject"]), []).append(value)
    return {subject: float(np.mean(np.sort(values[subject]))) for subject in sorted(values)}


def aligned(lines: Sequence[Sequence[str]], num_words: int = 1) -> str:
    """Lines of cells, the first is the head, as Markdown: `num_words` columns to the left, others right."""
    widths = [max(2, *(len(line[column]) for line in lines)) for column in range(len(lines[0]))]
    words = [True] * num_words + [False] * (len(widths) - num_words)
    rule = ["-" * w if word else "-" * (w - 1) + ":" for w, word in zip(widths, words, strict=True)]
    cells = [
        [cell.ljust(w) if word else cell.rjust(w) for cell, w, word in zip(line, widths, words, strict=True)]
        for line in (lines[0], rule, *lines[1:])
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def figure(value: Any, digits: int) -> str:
    """A number as printed; "-" for none."""
    printed = number(value)
    return "-" if math.isnan(printed) else f"{printed:.{digits}f}"


def number(value: Any) -> float:
    """A score as it is in a row, the CSV or the JSON; nan for none."""
    return math.nan if value is None or value == "" else float(value)


def mean_and_interval(values: np.ndarray, *, num_resamples: int = 2000, seed: int = 0) -> dict[str, float]:
    """{"mean", "low", "high"}; the same seed for every group: methods are resampled alike."""
    if len(values) < 2:
        return NO_SCORE | ({"mean": float(values[0])} if len(values) else {})
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


def _interval(score: Row, digits: int) -> str:
    low, high = (figure(score[end], digits) for end in ("low", "high"))
    return "-" if "-" in (low, high) else f"{low} to {high}"


def strict(value: Any) -> Any:
    """The same data with what strict JSON cannot say replaced: nan by null, inf by "inf"."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(float(value))
    return value
