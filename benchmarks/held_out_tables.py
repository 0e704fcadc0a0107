"""What `held_out.py` measured, as Markdown.

A row is plain data: {"group", "task", "data": "bids" or "brats", "patient", "session", "variant", "method",
"protocol", "region", "psnr", "ssim", ...}, and "copied" where the method is the best copy.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from hmf_networks.reports.table import DIGITS, Row, aligned, figure, subject_means, summarise

NETWORK, REGRESSION, COPY, BEST_COPY = "HMF-MambaINR", "voxelwise linear", "copy of ", "best copy"
AS_IT_IS, REGISTERED = "as it is", "registered"
VARIANTS = {AS_IT_IS: "as they are", REGISTERED: "truths of BraTS registered onto the first source, others as they are"}
MARGIN_DB = 2.0  # that the network is to be better by than the regression
MARGIN = f"PSNR in the brain: is it {MARGIN_DB} dB or more?"


def best_copies(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Of each patient, variant and protocol of one task, the rows of the copy with the highest brain PSNR."""
    copies = [row for row in rows if row["method"].startswith(COPY)]
    places = dict.fromkeys((row["patient"], row["variant"], row["protocol"]) for row in copies)
    best = []
    for patient, variant, protocol in places:
        here = picked(copies, patient=patient, variant=variant, protocol=protocol)
        scores = {method: brain_psnr(picked(here, method=method))[patient] for method in methods_of(here)}
        winner = max(scores, key=lambda method: scores[method])
        best += [
            row | {"method": BEST_COPY, "copied": winner.removeprefix(COPY)} for row in picked(here, method=winner)
        ]
    return best


def summaries(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Means and intervals by group, task and variant; see `summarise`."""
    return [
        {"group": group, "task": task, "variant": variant} | entry
        for group, task, variant, some in chapters(rows)
        for entry in summarise(row | {"subject": row["patient"]} for row in some)
    ]


def as_markdown(rows: Sequence[Row]) -> str:
    parts = []
    for group in dict.fromkeys(row["group"] for row in rows):
        parts.append(f"## {group}")
        verdicts: dict[str, list[str]] = {}
        for _, task, variant, some in chapters(picked(rows, group=group)):
            parts += [means(task, variant, some), by_patient(task, variant, some)]
            verdicts.setdefault(task, []).append(verdict(variant, some))
        parts.append(f"{NETWORK} minus {REGRESSION}, {MARGIN}; mean over patients, protocol volume")
        parts.append("\n".join(f"- {task}: {'; '.join(said)}" for task, said in verdicts.items()))
    return "\n\n".join(parts)


def chapters(rows: Sequence[Row]) -> Iterable[tuple[str, str, str, list[Row]]]:
    """Group, task, variant and its rows, for those that there are."""
    for group, task in dict.fromkeys((row["group"], row["task"]) for row in rows):
        here = picked(rows, group=group, task=task)
        yield group, task, AS_IT_IS, picked(here, variant=AS_IT_IS)
        if registered := picked(here, variant=REGISTERED):
            yield group, task, REGISTERED, picked(here, variant=AS_IT_IS, data="bids") + registered


def means(task: str, variant: str, rows: Sequence[Row]) -> str:
    """A table for each protocol: mean over patients and its interval."""
    tables = []
    methods = methods_of(rows)
    if sum(method.startswith(COPY) for method in methods) == 1:
        methods.remove(BEST_COPY)  # it is that one
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        entries = {
            (entry["method"], entry["region"]): entry
            for entry in summarise(row | {"subject": row["patient"]} for row in picked(rows, protocol=protocol))
        }
        count = max(entry["num_subjects"] for entry in entries.values())
        lines = [["method", "brain PSNR dB", "brain SSIM", "whole PSNR dB", "whole SSIM"]]
        for method in methods:
            places = [(region, metric) for region in ("brain", "whole") for metric in ("psnr", "ssim")]
            cells = [_cell(entries[method, region][metric], DIGITS[metric]) for region, metric in places]
            scored = entries[method, "brain"]["num_subjects"]
            lines.append([method if scored == count else f"{method} ({scored} of {count})", *cells])
        heading = f"{task}, protocol {protocol}, {count} patient{'s' * (count != 1)}, {VARIANTS[variant]}"
        tables.append(f"### {heading}\n\n{aligned(lines)}")
    return "\n\n".join(tables)


def by_patient(task: str, variant: str, rows: Sequence[Row]) -> str:
    """PSNR in the brain, protocol `volume`, sessions averaged; the best copy with its source."""
    rows = picked(rows, protocol="volume")
    methods = [name for name in methods_of(rows) if not name.startswith(COPY)]
    scores = {method: brain_psnr(picked(rows, method=method)) for method in methods}
    lines = [["patient", *methods]]
    for patient in dict.fromkeys(row["patient"] for row in rows):
        cells = [figure(scores[method].get(patient), DIGITS["psnr"]) for method in methods]
        copied = {row["copied"] for row in picked(rows, patient=patient, method=BEST_COPY)}
        lines.append([patient, *cells[:-1], f"{cells[-1]} (copy of {', '.join(copied)})"])
    return f"{task}, brain PSNR dB of each patient, protocol volume, {VARIANTS[variant]}\n\n{aligned(lines)}"


def verdict(variant: str, rows: Sequence[Row]) -> str:
    rows = picked(rows, protocol="volume")
    ours, theirs = (brain_psnr(picked(rows, method=method)) for method in (NETWORK, REGRESSION))
    both = ours.keys() & theirs.keys()
    if not both:
        return f"{variant}: not measured"
    difference = float(np.mean([ours[patient] - theirs[patient] for patient in sorted(both)]))
    return f"{variant} {difference:+.2f} dB, {'yes' if difference >= MARGIN_DB else 'no'}"


def picked(rows: Iterable[Row], **values: str) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in values.items())]


def methods_of(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in rows))


def brain_psnr(rows: Iterable[Row]) -> dict[str, float]:
    """Patient -> mean over sessions."""
    return subject_means((row | {"subject": row["patient"]} for row in picked(rows, region="brain")), "psnr")


def _cell(score: Row, digits: int) -> str:
    mean, low, high = (figure(score[key], digits) for key in ("mean", "low", "high"))
    return mean if low == "-" else f"{mean} ({low} to {high})"
