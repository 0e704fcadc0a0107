"""What `simulated_held_out.py` measured, as means with intervals: what tables and model card are made of.

Every interval is over people, and people of one label map are kin: with few maps it is too narrow.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from held_out_tables import as_markdown, methods_of, picked, summaries
from hmf_networks.reports.card_table import card_table
from hmf_networks.reports.table import Row, mean_and_interval
from simulated_scores import LESION, REST

DIFFERENCE = "difference"


def summarised(found: Mapping[str, Any]) -> dict[str, Any]:
    """{"summary", "lesions", "decoding_summary"} of the rows so far."""
    return {
        "summary": [entry for entry in summaries(found["rows"]) if entry["region"] not in (LESION, REST)],
        "lesions": lesion_summary(found["rows"]),
        "decoding_summary": decoding_summary(found["decoding"]),
    }


def lesion_summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """PSNR of lesions, of the rest of the brain, and their difference in each person who has lesions."""
    entries = []
    for group, task in dict.fromkeys((row["group"], row["task"]) for row in rows):
        here = picked(rows, group=group, task=task)
        for method in methods_of(here):
            sides = [
                {row["patient"]: row["psnr"] for row in picked(here, method=method, region=region)}
                for region in (LESION, REST)
            ]
            if sides[0]:
                who = {"group": group, "task": task, "method": method, "num_subjects": len(sides[0])}
                entries.append(who | compared(*sides, names=(LESION, REST)))
    return entries


def decoding_summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each task and pixel size: PSNR of either way, their difference, and gradient energy."""
    entries = []
    for task, spacing_mm in dict.fromkeys((row["task"], row["spacing_mm"]) for row in rows):
        here = [row for row in rows if (row["task"], row["spacing_mm"]) == (task, spacing_mm)]
        by_way = {
            way: {row["patient"]: row for row in picked(here, decode=way)}
            for way in dict.fromkeys(row["decode"] for row in here)
        }
        entry: dict[str, Any] = {"task": task, "spacing_mm": spacing_mm}
        entry["num_subjects"] = len(next(iter(by_way.values())))
        for metric in ("psnr", "gradient_ratio"):
            scores = {way: [row[metric] for row in some.values()] for way, some in by_way.items()}
            entry[metric] = {way: mean_and_interval(np.array(values)) for way, values in scores.items()}
        first, second = ({n: row["psnr"] for n, row in by_way[way].items()} for way in list(by_way)[:2])
        entry[DIFFERENCE] = compared(first, second, names=("one", "other"))[DIFFERENCE]
        entries.append(entry)
    return entries


def compared(one: Mapping[str, float], other: Mapping[str, float], *, names: tuple[str, str]) -> dict[str, Any]:
    """Means of both, and of the difference in each person."""
    both = sorted(one.keys() & other.keys())
    values = [np.array([side[name] for name in both]) for side in (one, other)]
    means = {name: mean_and_interval(some) for name, some in zip(names, values, strict=True)}
    return means | {DIFFERENCE: mean_and_interval(values[0] - values[1])}


def as_tables(content: Mapping[str, Any]) -> str:
    parts: Iterable[str] = (
        as_markdown(content["rows"]),
        f"## Lesions\n\n{card_table(content, 'lesions')}",
        f"## Decoding\n\n{card_table(content, 'decoding')}",
    )
    return "\n\n".join(parts)
