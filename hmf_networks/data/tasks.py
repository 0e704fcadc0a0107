"""What is to be made: from the subjects of a folder to records with a target, one for each output.

The records of one subject stand in a row: its files are read once and the network runs once for all of them.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from hmf_networks.data.datalist import Parts
from hmf_networks.data.folder import NUM_NAMED, find_subjects
from hmf_networks.data.prepared import SPACES, in_native_space
from hmf_networks.naming import (
    UNLISTED,
    Record,
    check_contrasts,
    check_switch,
    is_named,
    subject_name,
    unknown_word,
    usable_sources,
)

logger = logging.getLogger(__name__)

ONLY_ASKED = ("t1c",)  # no other contrast tells where a contrast agent would go


def shared_tasks(parts: Parts, targets: Sequence[str], *, any_subset: bool) -> Parts:
    """The parts of a split, the records with their tasks.

    But where any subset is learned from, training names none: it draws (`transforms/modality_dropout.py`).
    """
    tasks = {part: each_task(records, targets, any_subset=any_subset) for part, records in parts.items()}
    return tasks | {"training": parts["training"]} if any_subset else tasks


def each_task(records: Sequence[Record], targets: Sequence[str], *, any_subset: bool) -> list[Record]:
    """Records with a "target", one for each contrast that is to be made and compared.

    Args:
        records: with their true contrasts.
        targets: what the network makes.
        any_subset: of every contrast that a record has, but ONLY_ASKED, from its others; else of all targets.
    """
    return [
        task
        for record in records
        for name in targets
        if _is_task(task := record | {"target": name}, targets) or not any_subset
    ]


def _is_task(task: Record, targets: Sequence[str]) -> bool:
    target = task["target"]
    return target in task and target not in ONLY_ASKED and bool(usable_sources(task, targets))


def find_tasks(
    root: str | Path,
    sources: Sequence[str],
    targets: Sequence[str],
    target: str | None = None,
    *,
    given: Sequence[str] | None = None,
    any_subset: bool = True,
    layout: str = "auto",
    space: str | None = None,
    grid_of: str | None = None,
) -> list[Record]:
    """The records of `find_subjects`, not strict, each with the "target" that is to be made of it.

    Args:
        root: folder, datalist or file.
        sources: contrasts that the network reads.
        targets: contrasts that it makes.
        target: the one to make, for every subject, whether it has it or not. None for what is missing, but
            for ONLY_ASKED; subjects that lack nothing are left out.
        given: only these sources may be used, the others count as missing; None for all.
        any_subset: the network works from whatever sources there are; else it needs all of them, and every
            subject gets all `targets` unless one is named.
        layout: see `find_subjects`.
        space: "native" for the grid that a scan was acquired on, in a dataset of `hmf prepare`.
        grid_of: which scan; None for the first source. See `data/prepared.py`.

    Raises:
        FileNotFoundError, ValueError: no subject, none with a source, a contrast that the network does not
            know, or nothing is to be made.
    """
    _check_names(sources, targets, target, given)
    if space is not None:
        if space not in SPACES:
            raise ValueError(unknown_word("space", space, SPACES))
        tasks = find_tasks(root, sources, targets, target, given=given, any_subset=any_subset, layout=layout)
        return in_native_space(tasks, sources, given, grid_of)
    if grid_of is not None:
        raise ValueError("grid_of says whose grid is meant in native space: set space to native")
    if check_switch("any_subset", any_subset):
        return _any_to_any(Path(root), sources, targets, target, given, layout)
    left_out = [name for name in sources if given is not None and name not in given]
    if left_out:
        raise ValueError(f"the network needs {', '.join(sources)}: give {', '.join(left_out)} too")
    subjects = find_subjects(root, sources, layout=layout, strict=False)
    return [record | {"target": name} for record in subjects for name in ([target] if target else targets)]


def _any_to_any(
    root: Path,
    sources: Sequence[str],
    targets: Sequence[str],
    target: str | None,
    given: Sequence[str] | None,
    layout: str,
) -> list[Record]:
    wanted = [target] if target else [name for name in targets if name not in ONLY_ASKED]
    tasks: list[Record] = []
    complete: list[Record] = []
    for record in find_subjects(root, [], layout=layout, strict=False):
        there = usable_sources(record, wanted, given)
        missing = [name for name in wanted if name == target or name not in there]
        tasks += [record | {"target": name} for name in missing]
        complete += [] if missing else [record]
    if not tasks:
        raise ValueError(
            f"nothing is to be made: all {len(complete)} subject(s) in {root} have {', '.join(wanted)}; "
            f"name what to make all the same by --target: {', '.join(targets)}"
        )
    _check_some_source(root, tasks, sources, given)
    if complete:
        logger.info("%d subject(s) left out, as they lack nothing: %s", len(complete), _named(complete))
    return tasks


def _check_names(
    sources: Sequence[str], targets: Sequence[str], target: str | None, given: Sequence[str] | None
) -> None:
    for names in (sources, targets, [] if target is None else [target], given or []):
        check_contrasts(names)
    if target is not None and target not in targets:
        raise ValueError(f"the network makes {', '.join(targets)}, not {target}; choose another target")
    unknown = [name for name in given or [] if name not in sources]
    if unknown or given == []:
        found = f"the network does not know {', '.join(unknown)}" if unknown else "no source is given"
        raise ValueError(f"{found}; it works from {', '.join(sources)}")


def _check_some_source(
    root: Path, tasks: Sequence[Record], sources: Sequence[str], given: Sequence[str] | None
) -> None:
    """That one subject has none is told with its name; that all have none, before anything is begun."""
    seen = [record for record in tasks if UNLISTED not in record]
    if seen and not any(usable_sources(record, sources, given) for record in seen):
        raise ValueError(
            f"no subject in {root} has a source to make {seen[0]['target']} from; "
            f"what may be used: {', '.join(given or sources)}"
        )


def _named(records: Sequence[Record]) -> str:
    names = [subject_name(record) if is_named(record) else "?" for record in records]
    return ", ".join(names[:NUM_NAMED]) + (", ..." if len(names) > NUM_NAMED else "")
