"""People who do not exist, drawn from label maps of real heads: those that `simulated_held_out.py` scores.

A person has scans by random protocols, as sources, and the truth by canonical ones; both with their lesions.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from held_out_scores import Task
from hmf_networks.data.folder import find_subjects
from hmf_networks.data.head_phantom import SCANS, TRUTH, simulate_heads
from hmf_networks.data.label_maps import find_label_maps
from hmf_networks.data.records import nifti_stem
from hmf_networks.naming import Record, unknown_word
from hmf_networks.physics.head import Head
from hmf_networks.transforms.simulate import LoadHeadd

KINDS = {"with skull": 0.0, "brain extracted": 1.0}  # and the share of them that is extracted


class Person(NamedTuple):
    name: str
    kind: str
    map: int
    lesion_ml: float
    scans: Record
    truth: Record

    def record(self, task: Task) -> Record:
        """Sources as scanned, the target as it should be, and the map of tissues and lesions."""
        sources = {name: self.scans[name] for name in task.sources}
        truth = {task.target: self.truth[task.target], "tissues": self.truth["tissues"]}
        return {"patient": self.name, "session": "", **sources, **truth}

    def told(self) -> dict[str, Any]:
        return {"patient": self.name, "kind": self.kind, "map": self.map, "lesion_ml": self.lesion_ml}


def heads_of(folder: Path, numbers: Sequence[int]) -> dict[int, Head]:
    """The maps whose names end in these numbers; no other one is opened."""
    found: dict[int, list[Record]] = {}
    for record in find_label_maps(folder):
        if digits := re.search(r"\d+$", str(nifti_stem(Path(record["labels"])))):
            found.setdefault(int(digits[0]), []).append(record)
    for number in numbers:
        if len(found.get(number, [])) != 1:
            known = [str(known) for known, records in found.items() if len(records) == 1]
            raise ValueError(unknown_word("label map", str(number), known))
    load = LoadHeadd()
    return {number: load(dict(found[number][0]))["head"] for number in numbers}


def simulate_people(folder: Path, heads: dict[int, Head], *, per_map: int, seed: int, **options: Any) -> list[Person]:
    """So many of each kind from every map; see `simulate_heads` for the options."""
    people = []
    maps = list(heads)
    for offset, (kind, share) in enumerate(KINDS.items()):
        place = folder / kind.replace(" ", "_")
        summaries = simulate_heads(
            place,
            list(heads.values()),
            num_subjects=per_map * len(heads),
            seed=len(KINDS) * seed + offset,
            layout="bids",
            stripped_share=share,
            **options,
        )
        scans, truths = (find_subjects(place / part, []) for part in (SCANS, TRUTH))
        for number, (summary, scan, truth) in enumerate(zip(summaries, scans, truths, strict=True)):
            name = f"map{maps[number % len(maps)]}-{kind.replace(' ', '-')}-{seed}-{number // len(maps) + 1}"
            tissues = truth["label"].replace("_label-lesion_mask", "_dseg")
            truth = {**truth, "tissues": tissues}
            people.append(Person(name, kind, maps[number % len(maps)], summary["lesion_ml"], scan, truth))
    return people
