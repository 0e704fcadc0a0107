"""One plane of each of the first subjects, kept while scoring: what side-by-side pictures are drawn from."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from hmf_networks.atomic import write_whole
from ignite.engine import Engine, Events
from torch import Tensor


class KeepPlanes:
    """Handler of the evaluator: `<output_dir>/<subject>_<target>.npz` with image, label and pred.

    Args:
        output_dir: folder of the files.
        num_subjects: of how many; 0 keeps none.

    Needs image (S, X, Y, Z), label and pred (1, X, Y, Z) in [-1, 1], RAS. Arrays are (channels, rows, columns)
    with the front of the head up: the axial plane with most of the truth in it.
    """

    def __init__(self, output_dir: str, *, num_subjects: int = 0) -> None:
        self.output_dir, self.num_subjects = Path(output_dir), num_subjects
        self.kept: list[str] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda: self.kept.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)

    def keep(self, engine: Engine) -> None:
        for record, sample in zip(engine.state.batch, engine.state.output, strict=True):
            name = "_".join(str(record[key]) for key in ("patient", "session", "target") if record.get(key))
            if len(self.kept) < self.num_subjects and name not in self.kept:
                self.kept.append(name)
                content = io.BytesIO()
                np.savez_compressed(content, **plane_of(sample))  # type: ignore[arg-type] # its other option is a switch
                write_whole(self.output_dir / f"{name}.npz", content.getvalue())


def plane_of(sample: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    label: Tensor = sample["label"].as_subclass(Tensor)
    z = int((label[0] > -1).sum(dim=(0, 1)).argmax())
    volumes = {name: sample[name].as_subclass(Tensor)[..., z] for name in ("image", "label", "pred")}
    return {name: np.rot90(plane.float().cpu().numpy(), axes=(1, 2)).copy() for name, plane in volumes.items()}
