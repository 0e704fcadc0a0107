"""Score the network and what it must beat on the same volumes, under named protocols, into one table."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hmf_networks.metrics import affine_fit, slice_scores, to_unit, volume_scores
from hmf_networks.reports.table import format_table, summarise, write_scores
from ignite.engine import Engine, Events
from torch import Tensor

logger = logging.getLogger(__name__)

Rival = Callable[[Tensor], Tensor]
PROTOCOLS = ("volume", "affine", "slice")


class ScoreTable:
    """Handler of the evaluator: `scores.csv`, `scores.json` and a printed table at the end.

    Args:
        output_dir: folder of the two files.
        method: what the evaluator's network is called in the table.
        rivals: name -> callable, sources (1, S, X, Y, Z) -> targets (1, T, X, Y, Z), both in [-1, 1]; None
            is left out.
        targets: contrasts of the T channels.

    Needs image, label and pred of one volume a step in [-1, 1]; a `region` in the batch is scored as "label".
    Where the records tell a `target`, there is a table for each.
    """

    def __init__(
        self,
        output_dir: str,
        *,
        method: str,
        rivals: Mapping[str, Rival | None] | None = None,
        targets: Sequence[str] = (),
    ) -> None:
        self.output_dir = Path(output_dir)
        self.method = method
        self.rivals = {name: rival for name, rival in (rivals or {}).items() if rival is not None}
        self.targets = list(targets)
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda: self.rows.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.score)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def score(self, engine: Engine) -> None:
        for record, sample in zip(engine.state.batch, engine.state.output, strict=True):
            predictions = {self.method: sample["pred"]}
            with torch.no_grad():
                for name, rival in self.rivals.items():
                    several = rival(sample["image"][None])[0]
                    number = self.targets.index(record["target"]) if len(several) > 1 else 0
                    predictions[name] = several[number : number + 1]
            for method, prediction in predictions.items():
                scores = volume_rows(prediction[0], sample["label"][0], record.get("region"))
                who = {key: record[key] for key in ("target",) if key in record}
                who |= {"subject": record["patient"], "session": record.get("session", "")}
                if "input_psnr" in record:  # of sources that were corrupted on purpose
                    who["input_psnr"] = round(float(record["input_psnr"]), 3)
                self.rows += [{"method": method, **who, **row} for row in scores]

    def write(self, _engine: Engine) -> None:
        write_scores(self.rows, self.output_dir / "scores.csv", self.output_dir / "scores.json")
        targets = dict.fromkeys(row.get("target", "") for row in self.rows)
        tables = [self._table(target) for target in targets]
        logger.info("scores written to %s\n\n%s", self.output_dir / "scores.csv", "\n".join(tables))

    def _table(self, target: str) -> str:
        rows = [row for row in self.rows if row.get("target", "") == target]
        return f"{target}\n{format_table(summarise(rows))}" if target else format_table(summarise(rows))


def volume_rows(
    prediction: Tensor, truth: Tensor, region: Tensor | None = None, protocols: Collection[str] = PROTOCOLS
) -> list[dict[str, Any]]:
    """Scores of a volume (X, Y, Z) in [-1, 1] under the protocols that are asked (docs/evaluation.md)."""
    prediction, truth = (x.as_subclass(Tensor).float().cpu() for x in (prediction, truth))
    brain = truth > -1
    regions = {"brain": brain}
    if region is not None and bool((region > 0).any()):
        regions["label"] = region.as_subclass(Tensor)[0].cpu() > 0
    predicted, true = to_unit(prediction).clamp(0, 1), to_unit(truth)
    scores = {}
    if "volume" in protocols:
        scores["volume"] = volume_scores(predicted, true, regions)
    if "affine" in protocols:
        scores["affine"] = volume_scores(affine_fit(predicted, true, brain), true, regions)
    if "slice" in protocols:
        scores["slice"] = {"whole": slice_scores(predicted, true, brain)}
    return [
        {"protocol": protocol, "region": name, **figures}
        for protocol, by_region in scores.items()
        for name, figures in by_region.items()
    ]
