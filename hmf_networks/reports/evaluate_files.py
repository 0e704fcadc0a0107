"""Score synthesised volumes on disk against the true ones: tables, tests between runs, the worst subjects."""

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hmf_networks.atomic import write_whole
from hmf_networks.metrics import to_unit
from hmf_networks.naming import Record, subject_name, unknown_word
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.reports.comparison import compare_runs, format_comparisons
from hmf_networks.reports.predictions import Failure, find_predictions, find_truths, unpaired
from hmf_networks.reports.scoring import PROTOCOLS, brain_psnr, read_prediction, read_truth, scale_by_fixed_map, score
from hmf_networks.reports.table import figure, format_table, summarise, write_scores
from hmf_networks.transforms.preview import three_planes_png

logger = logging.getLogger(__name__)

ERROR_GAIN = 3  # a third of the range is drawn white: errors of a usable image would be too dark to see

Predictions = Mapping[str, Mapping[str, Path]]  # run -> subject -> file


class Scores(NamedTuple):
    """What was found: rows for the table, PSNR in the brain by run and subject, who could not be scored."""

    rows: list[dict[str, Any]]
    brain_psnr: dict[str, dict[str, float]]
    failures: list[Failure]


def evaluate_files(
    predictions: str | Path,
    truth: str | Path,
    target: str,
    *,
    output_dir: str | Path | None = None,
    against: Sequence[str | Path] = (),
    protocols: Sequence[str] = ("volume",),
    num_worst: int = 3,
) -> list[Failure]:
    """Score a run, and others to compare it with; who cannot be scored is named, returned, and the rest done.

    Args:
        predictions: folder as `hmf synthesize` writes it, or a NIfTI file; values 0..1000.
        truth: dataset folder or datalist in any known layout; a NIfTI file where `predictions` is one.
        target: the contrast that was synthesised.
        output_dir: where scores.csv, scores.json, errors.json and worst/*.png go; None writes nothing.
        against: other such folders or files.
        protocols: out of PROTOCOLS.
        num_worst: how many subjects with the lowest PSNR in the brain are listed and drawn.

    Raises:
        ValueError, OSError: nothing can be scored at all.
    """
    if num_worst < 0:
        raise ValueError(f"the number of worst subjects is {num_worst}; write 0 or more")
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise ValueError(unknown_word("protocol", protocol, PROTOCOLS))
    records = find_truths(truth, target)
    folders = _named_runs([predictions, *against])
    found = {run: find_predictions(folder, target, records) for run, folder in folders.items()}
    _check_any_pair(records, found)
    if output_dir is not None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)  # refused now, not after an hour
    scores = _score_all(records, target, found, protocols)
    for run, folder in folders.items():
        scores.failures.extend(unpaired(records, found[run], folder, target))
    scores.failures.sort()

    run, *others = folders
    comparisons = compare_runs(scores.rows, run, others)
    worst = _worst(scores.brain_psnr[run], num_worst)
    if output_dir is not None:
        _write(Path(output_dir), scores, {"comparisons": comparisons, "worst": worst})
        _draw_worst(Path(output_dir) / "worst", records, target, found[run], [w["subject"] for w in worst])
    logger.info("%s", _report(scores, comparisons if others else None, worst))
    return scores.failures


def _check_any_pair(records: Sequence[Record], found: Predictions) -> None:
    truths = [subject_name(record) for record in records]
    predicted = [subject for files in found.values() for subject in files]
    if set(truths).isdisjoint(predicted):
        raise ValueError(
            f"no prediction belongs to a subject of the truth: there e.g. {truths[0]}, here e.g. "
            f"{predicted[0]}; give the folder that was made of them"
        )


def _named_runs(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Name in the table -> folder: the last part of the path, the whole where two end alike."""
    folders = [Path(path).expanduser().resolve() for path in paths]
    ends = [folder.name for folder in folders]
    names = [str(f) if ends.count(f.name) > 1 else f.name for f in folders]
    if len(set(names)) < len(names):
        raise ValueError(f"{max(names, key=names.count)} is given twice; compare different runs")
    return dict(zip(names, folders, strict=True))


def _score_all(records: Sequence[Record], target: str, found: Predictions, protocols: Collection[str]) -> Scores:
    scores = Scores([], {run: {} for run in found}, [])
    for record in records:
        subject = subject_name(record)
        paths = {run: files[subject] for run, files in found.items() if subject in files}
        if not paths:
            continue
        with _named_failures(subject, scores):
            truth = read_truth(record, target)
            for run, path in paths.items():
                with _named_failures(subject, scores):
                    prediction = read_prediction(path, truth)
                    who = {"method": run, "subject": record["patient"], "session": record.get("session", "")}
                    scores.rows.extend(who | row for row in score(prediction, truth, protocols))
                    scores.brain_psnr[run][subject] = value = brain_psnr(prediction, truth)
                    logger.info("%s, %s: %s dB in the brain", subject, run, figure(value, 2))
    scores.rows.sort(key=lambda row: PROTOCOLS.index(row["protocol"]))  # one protocol after the other
    return scores


@contextmanager
def _named_failures(subject: str, scores: Scores) -> Iterator[None]:
    try:
        yield
    except VolumeError as error:
        scores.failures.append(Failure.from_error(subject, error))


def _worst(brain_psnr: Mapping[str, float], num_worst: int) -> list[dict[str, Any]]:
    ordered = sorted(brain_psnr, key=lambda subject: (brain_psnr[subject], subject))
    return [{"subject": subject, "brain_psnr": brain_psnr[subject]} for subject in ordered[:num_worst]]


def _write(output_dir: Path, scores: Scores, more: Mapping[str, Any]) -> None:
    write_scores(scores.rows, output_dir / "scores.csv", output_dir / "scores.json", more=more)
    errors_path = output_dir / "errors.json"
    if scores.failures:
        write_whole(errors_path, json.dumps([f._asdict() for f in scores.failures], indent=1) + "\n")
    else:
        errors_path.unlink(missing_ok=True)  # of an earlier evaluation


def _draw_worst(
    folder: Path, records: Sequence[Record], target: str, files: Mapping[str, Path], subjects: Sequence[str]
) -> None:
    """Truth, prediction and error of each in three planes; pictures of an earlier evaluation go away."""
    for record in records:
        subject = subject_name(record)
        if subject not in subjects:
            (folder / f"{subject}.png").unlink(missing_ok=True)
            continue
        truth = read_truth(record, target)
        prediction = scale_by_fixed_map(read_prediction(files[subject], truth))
        error = (to_unit(prediction) - to_unit(truth.scaled)).abs() * ERROR_GAIN
        columns = {
            f"{target}, true": truth.scaled,
            f"{target}, synthetic": prediction,
            f"difference x {ERROR_GAIN}": error * 2 - 1,
        }
        planes = {name: np.asarray(volume) for name, volume in columns.items()}
        write_whole(folder / f"{subject}.png", three_planes_png(planes, truth.volume.spacing_mm))


def _report(scores: Scores, comparisons: Sequence[Mapping[str, Any]] | None, worst: Sequence[Mapping[str, Any]]) -> str:
    summary = summarise(scores.rows)
    places = dict.fromkeys((entry["protocol"], entry["region"]) for entry in summary)
    parts = [format_table(summary, *place) for place in places]
    if comparisons is not None:
        parts.append(format_comparisons(comparisons))
    if worst:
        lines = [f"  {entry['subject']}  {figure(entry['brain_psnr'], 2)}" for entry in worst]
        parts.append("\n".join(["Lowest PSNR in the brain, dB (protocol volume):", *lines, ""]))
    if scores.failures:
        lines = [f"  {f.subject}: {f.code} {f.cause}; {f.cure}" for f in scores.failures]
        parts.append("\n".join([f"Not scored ({len(lines)}):", *lines, ""]))
    return "\n" + "\n".join(parts)
