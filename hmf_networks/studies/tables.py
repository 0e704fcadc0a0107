"""From the scores of all runs to tables: CSV, JSON, Markdown, LaTeX; every row with protocol, seed and hashes."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from hmf_networks.atomic import write_whole
from hmf_networks.reports.comparison import compare_runs, format_comparisons
from hmf_networks.reports.table import (
    DIGITS,
    LABELS,
    METRICS,
    Row,
    figure,
    format_table,
    number,
    strict,
    summarise,
    write_scores,
)
from hmf_networks.studies.runs import DONE, Place, is_done, scores_folder
from hmf_networks.studies.study import Study, runs_of

IN_LATEX = ("psnr", "ssim", "nmse")
LOWER_IS_BETTER = ("nmse", "mae")
TESTED = ("psnr", "ssim")
SIGNIFICANT = 0.05
HASHES = ("settings_sha256", "weights_sha256")


def gather(study: Study, place: Place) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of scores, and what is known of the runs, of those runs that are done."""
    rows, runs = [], []
    for run in runs_of(study):
        if not is_done(run, study, place):
            continue
        folder = place.of(run)
        about = json.loads((folder / DONE).read_text(encoding="utf-8"))
        runs.append(about)
        for condition in ("", *study.conditions):
            hashes = {key: about[key] for key in HASHES}
            with (scores_folder(folder, condition) / "scores.csv").open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    scores = {key: number(row[key]) for key in (*METRICS, "input_psnr") if key in row}
                    ours = hashes if row["method"] == run.method else {}
                    place_of_row = {"task": table_name(run.task, condition), "seed": run.seed}
                    rows.append({**row, **scores, **place_of_row, **ours})
    return rows, runs


def table_name(task: str, condition: str) -> str:
    return f"{task}, {condition}" if condition else task


def write_tables(study: Study, place: Place) -> list[dict[str, Any]]:
    """results.csv, .json, .md and .tex in the folder of the study; returns the rows. Nothing, where no run is done."""
    rows, runs = gather(study, place)
    if not rows:
        return rows
    names = [table_name(task, condition) for task in study.tasks for condition in ("", *study.conditions)]
    tasks = {name: some for name in names if (some := [row for row in rows if row["task"] == name])}
    summaries = {task: summarise(some) for task, some in tasks.items()}
    comparisons = {task: compared(some, next(iter(study.methods))) for task, some in tasks.items()}
    more = {
        "study": {"name": study.name, "data": study.data, "seeds": study.seeds, "budget": study.budget},
        "tasks": {task: {"summary": summaries[task], "comparisons": comparisons[task]} for task in tasks},
        "runs": runs,
    }
    write_scores(rows, place.output_dir / "results.csv", place.output_dir / "results.json", more=strict(more))
    inputs = {task: input_psnr(some) for task, some in tasks.items()}
    write_whole(place.output_dir / "results.md", as_markdown(study, summaries, comparisons, inputs))
    write_whole(place.output_dir / "results.tex", as_latex(summaries))
    return rows


def compared(rows: Sequence[Row], ours: str) -> list[dict[str, Any]]:
    """Ours against each other, in the brain by `volume`: PSNR and SSIM, Holm's correction over these tests alone.

    A pair is a subject's scan with one seed; seeds and sessions are averaged, so that subjects are what counts.
    """
    chosen = [
        {**row, "session": f"{row.get('session', '')} seed {row['seed']}"}
        for row in rows
        if (row["protocol"], row["region"]) == ("volume", "brain")
    ]
    others = [method for method in dict.fromkeys(str(row["method"]) for row in chosen) if method != ours]
    return compare_runs(chosen, ours, others, TESTED)


def input_psnr(rows: Sequence[Row]) -> float:
    """Of sources that were corrupted, how far they are from what they were; nan where none was."""
    return float(np.mean([number(row.get("input_psnr")) for row in rows]))


def as_markdown(
    study: Study, summaries: Mapping[str, Any], comparisons: Mapping[str, Any], inputs: Mapping[str, float]
) -> str:
    seeds = ", ".join(map(str, study.seeds))
    budget = ", ".join(f"{key} {value}" for key, value in study.budget.items())
    parts = [f"# {study.name}\n", f"Seeds {seeds}; alike for all: {budget}.\n"]
    for task, summary in summaries.items():
        parts += [f"## {task}\n", format_table(summary)]
        if not math.isnan(inputs[task]):
            parts.append(f"The corrupted sources lie at {inputs[task]:.1f} dB PSNR of what they were.\n")
        parts += [best_other(summary, comparisons[task]), format_comparisons(comparisons[task])]
        if note := powerless(comparisons[task]):
            parts.append(note)
    return "\n".join(parts)


def best_other(summary: Sequence[Row], comparisons: Sequence[Row]) -> str:
    """How the first method stands to the best of the others, by mean PSNR."""
    others = {c["against"]: c for c in comparisons if c["metric"] == "psnr"}
    means = {
        str(entry["method"]): number(entry["psnr"]["mean"])
        for entry in summary
        if (entry["protocol"], entry["region"]) == ("volume", "brain") and entry["method"] in others
    }
    if not means:
        return ""
    best = max(means, key=lambda method: means[method])
    found = others[best]
    chance = "" if found["p_holm"] is None else f", p Holm {found['p_holm']:.4f}"
    difference = figure(found["median_difference"], DIGITS["psnr"])
    return f"Best other by PSNR: {best}; {found['run']} minus it, median over subjects: {difference} dB{chance}.\n"


def powerless(comparisons: Sequence[Row]) -> str:
    """Said where so few subjects could not be told apart by so many tests, whatever they scored."""
    tested = [c for c in comparisons if c["p"] is not None]
    if not tested:
        return ""
    subjects = max(c["num_subjects"] for c in tested)
    least = 2 * 0.5**subjects * len(tested)
    if least <= SIGNIFICANT:
        return ""
    return f"With {subjects} subjects and {len(tested)} tests no p Holm can fall below {least:.2f}.\n"


def as_latex(summaries: Mapping[str, Sequence[Row]]) -> str:
    """One table, methods by tasks, protocol volume in the brain; the best of each column in bold (booktabs)."""
    methods = dict.fromkeys(str(entry["method"]) for summary in summaries.values() for entry in summary)
    columns = [(task, metric) for task in summaries for metric in IN_LATEX]
    means = {
        (str(entry["method"]), task, metric): number(entry[metric]["mean"])
        for task, summary in summaries.items()
        for entry in summary
        if (entry["protocol"], entry["region"]) == ("volume", "brain")
        for metric in IN_LATEX
    }
    best = {}
    for column in columns:
        values = [value for (_, *place), value in means.items() if tuple(place) == column and value == value]
        best[column] = (min if column[1] in LOWER_IS_BETTER else max)(values, default=None)
    head = " & ".join(f"\\multicolumn{{{len(IN_LATEX)}}}{{c}}{{{_escaped(task)}}}" for task in summaries)
    lines = [f"\\begin{{tabular}}{{l{'r' * len(columns)}}}", "\\toprule", f" & {head} \\\\"]
    lines += [" & ".join(["method", *(LABELS[metric] for _, metric in columns)]) + " \\\\", "\\midrule"]
    for method in methods:
        cells = [_escaped(method)]
        for column in columns:
            value = means.get((method, *column))
            cell = figure(value, DIGITS[column[1]])
            cells.append(f"\\textbf{{{cell}}}" if value is not None and value == best[column] else cell)
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _escaped(text: str) -> str:
    return text.replace("->", "$\\to$").replace("&", "\\&").replace("_", "\\_").replace("%", "\\%")
