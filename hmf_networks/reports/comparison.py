"""Is one run better than another on the same subjects? Paired tests, corrected for their number."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from hmf_networks.reports.table import DIGITS, LABELS, METRICS, Row, aligned, figure, number, subject_means
from scipy.stats import wilcoxon

MIN_SUBJECTS = 6  # with five, even five wins out of five are p = 0.0625


def compare_runs(
    rows: Sequence[Row], run: str, others: Iterable[str], metrics: Sequence[str] = METRICS
) -> list[dict[str, Any]]:
    """`run` against each other method, per protocol, region and metric, on the subjects that both have.

    Returns [{"run", "against", "protocol", "region", "metric", "num_subjects", "median_difference", "p",
    "p_holm"}, ...]; differences are run minus other. Sessions that both have are averaged per subject. p
    is None with fewer than MIN_SUBJECTS. Holm's correction counts every comparison of this list with a p.
    """
    groups: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        place = groups.setdefault((row["protocol"], row["region"]), {})
        place.setdefault(row["method"], []).append(row)
    comparisons = [
        {"run": run, "against": other, "protocol": protocol, "region": region, "metric": metric, **outcome}
        for other in others
        for (protocol, region), methods in groups.items()
        for metric in metrics
        if (outcome := _paired(methods.get(run, []), methods.get(other, []), metric))["num_subjects"]
    ]
    tested = [comparison for comparison in comparisons if comparison["p"] is not None]
    for comparison, p_holm in zip(tested, holm([c["p"] for c in tested]), strict=True):
        comparison["p_holm"] = p_holm
    return comparisons


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the chance of one false alarm among all stays below the level.

    The smallest of m values is multiplied by m, the next by m - 1, ...; none falls below an earlier one, nor
    rises above 1.
    """
    adjusted, floor = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = floor
    return adjusted


def signed_rank_p(differences: Sequence[float]) -> float:
    """Two-sided Wilcoxon signed-rank test; differences of zero are left out, and with nothing else p is 1."""
    some = [difference for difference in differences if difference != 0]
    return float(wilcoxon(some).pvalue) if some else 1.0


def format_comparisons(comparisons: Sequence[Row]) -> str:
    """Aligned Markdown under a heading that says what was tested."""
    if not comparisons:
        return "Paired comparison: the runs have no subject in common\n"
    tested = sum(comparison["p"] is not None for comparison in comparisons)
    heading = (
        f"Paired comparison, {comparisons[0]['run']} minus the other: positive is better for PSNR, SSIM, "
        "MS-SSIM, negative for NMSE, MAE\nWilcoxon signed-rank test over subjects, two-sided; "
        f"p Holm: corrected for all {tested} tests of this table"
    )
    lines = [["against", "protocol", "region", "metric", "n", "median difference", "p", "p Holm"]]
    for comparison in comparisons:
        name = [str(comparison[key]).replace("|", "\\|") for key in ("against", "protocol", "region")]
        metric = comparison["metric"]
        difference = figure(comparison["median_difference"], DIGITS[metric] + 1)
        chances = [_p_value(comparison[key]) for key in ("p", "p_holm")]
        lines.append([*name, LABELS[metric], str(comparison["num_subjects"]), difference, *chances])
    few = f"{MIN_SUBJECTS} subjects are needed for a p value" if tested < len(comparisons) else ""
    return f"{heading}\n\n{aligned(lines, num_words=4)}\n" + (f"\ntoo few: {few}\n" if few else "")


def _paired(rows: Sequence[Row], others: Sequence[Row], metric: str) -> dict[str, Any]:
    both = _scans(rows, metric) & _scans(others, metric)
    mine, theirs = (subject_means((row for row in some if _scan(row) in both), metric) for some in (rows, others))
    differences = [_difference(mine[subject], theirs[subject]) for subject in mine]
    return {
        "num_subjects": len(differences),
        "median_difference": _median(differences),
        "p": signed_rank_p(differences) if len(differences) >= MIN_SUBJECTS else None,
        "p_holm": None,
    }


def _scans(rows: Iterable[Row], metric: str) -> set[tuple[str, str]]:
    return {_scan(row) for row in rows if not math.isnan(number(row.get(metric)))}


def _scan(row: Row) -> tuple[str, str]:
    return str(row["subject"]), str(row.get("session", ""))


def _difference(mine: float, theirs: float) -> float:
    return 0.0 if mine == theirs else mine - theirs  # two perfect PSNR, inf - inf, are equal


def _median(differences: Sequence[float]) -> float:
    ordered = sorted(differences)
    if not ordered:
        return math.nan
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return low if low == high else float(np.mean([low, high]))


def _p_value(p: float | None) -> str:
    if p is None:
        return "too few"
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"
