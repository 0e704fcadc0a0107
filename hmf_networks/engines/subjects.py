"""A folder of subjects, one after the other: a bad one is named and left out, and the run goes on.

Under torchrun every process takes its share of the subjects; what they write down is one report.
"""

import itertools
import logging
import platform
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import monai
import nibabel
import torch
from hmf_networks import __version__
from hmf_networks.engines.overlap import ReadAhead
from hmf_networks.engines.processes import agreed, from_all, process, together
from hmf_networks.ops.selective_scan import resolve_backend
from hmf_networks.outputs.folder import OutputFolder, report
from hmf_networks.transforms.save import NoRoomError, SaveSynthesisd
from ignite.engine import Events
from monai.data import Dataset, list_data_collate
from monai.engines import SupervisedEvaluator

logger = logging.getLogger(__name__)

USUAL_STATES = 16  # N of the paper; the backend is the same for all that networks here have

Record = Mapping[str, Any]


class Unread(NamedTuple):
    """In the place of a batch: an output that is done, cannot be made, or comes with another's batch."""

    record: Record
    error: BaseException | None = None


class SubjectLoader:
    """Batches of one subject each, in order; what another process is making comes last, if still needed.

    Args:
        dataset: `data`, the records, one for each output, and their preprocessing.
        outputs: which may be made.

    Each record gives one item: a batch, or `Unread`. What stands in a row, of one subject and from the same
    sources, is one batch, which names its "targets"; the others of it come before, so that the items after
    a batch are the next subject's, to be read while the network works.
    """

    def __init__(self, dataset: Dataset, outputs: OutputFolder) -> None:
        self.dataset, self.outputs = dataset, outputs
        self.records: Sequence[Record] = dataset.data

    def _share(self) -> list[list[int]]:
        """The batches of this process, as indices of records."""
        rank, world_size = process()
        groups = itertools.groupby(range(len(self.records)), key=lambda index: self._made_of(self.records[index]))
        return [list(indices) for _, indices in groups][rank::world_size]

    def _made_of(self, record: Record) -> Any:
        """What is the same for all outputs of a batch."""
        of_subject = {key: value for key, value in record.items() if key != "target"}
        return of_subject, self.outputs.sources_of(record)

    def __len__(self) -> int:
        return sum(map(len, self._share()))

    def __iter__(self) -> Iterator[Any]:
        busy = []
        for indices in self._share():
            free, settled, busy_now = self._claimed(indices, wait=False)
            yield from [*settled, *self._read(free)]
            busy.append(busy_now)
        for indices in busy:
            free, settled, given_up = self._claimed(indices, wait=True)
            yield from [*settled, *self._read(free), *(Unread(self.records[index]) for index in given_up)]

    def _claimed(self, indices: Sequence[int], *, wait: bool) -> tuple[list[int], list[Unread], list[int]]:
        """What is now ours to make, what is not to be made, and what is busy."""
        free: list[int] = []
        busy: list[int] = []
        settled = []
        for index in indices:
            try:
                standing = self.outputs.claim(self.records[index], wait=wait)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one output, others are not to suffer
                settled.append(Unread(self.records[index], error))
                continue
            if standing == "done":
                settled.append(Unread(self.records[index]))
            else:
                (free if standing == "free" else busy).append(index)
        return free, settled, busy

    def _read(self, indices: Sequence[int]) -> list[Any]:
        """An item for each: those that come with the batch, and it; where it cannot be read, all say so."""
        records = [self.records[index] for index in indices]
        if not records:
            return []
        try:
            sample = self.dataset[indices[0]] | {"targets": [record["target"] for record in records]}
            return [*map(Unread, records[1:]), list_data_collate([sample])]
        except Exception as error:  # noqa: BLE001 - as in `_claimed`
            return [Unread(record, _cause(error)) for record in records]


class SubjectEvaluator(SupervisedEvaluator):
    """MONAI's evaluator for a folder of subjects: it outlives bad ones, and writes down what became of all.

    Args:
        val_data_loader: a `SubjectLoader`.
        outputs: the folder of the outputs.
        save: the transform that writes them; it does so while the next subject is at work.
        seed: for the manifest.
        **settings: those of `SupervisedEvaluator`.

    Raises:
        SubjectsFailed: after all else is done, when a subject could not be.
        NoRoomError: the disk is full; what was written before is whole.
        SystemExit: 143 or 130 after SIGTERM or SIGINT, when the files of the subject in writing are whole.
    """

    def __init__(
        self,
        *,
        val_data_loader: SubjectLoader,
        outputs: OutputFolder,
        save: SaveSynthesisd,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(val_data_loader=ReadAhead(val_data_loader), **settings)
        self.add_event_handler(Events.STARTED, self._note_weights)  # after those that load them
        self.subjects, self.outputs, self.save, self.seed = val_data_loader, outputs, save, seed

    def run(self, global_epoch: int = 1) -> None:
        with together() as group:
            try:
                agreed(lambda: self.outputs.open(self.subjects.records), group)
            except BaseException:
                self.outputs.abandon()
                raise
            self.save.ledger, self.save.behind = self.outputs, True
            try:
                with signals_as_exits():
                    if len(self.subjects):
                        super().run(global_epoch)
                    self.save.finish()
            except BaseException:
                self._finish_anyhow()
                self.outputs.release_all()
                self.outputs.abandon()
                raise
            self.outputs.release_all()
            everywhere = from_all(self.outputs.fates, group)
            fates = {fate: sorted(output for some in everywhere for output in some[fate]) for fate in everywhere[0]}
            is_first = process()[0] == 0
            agreed((lambda: self.outputs.close(self._about(), fates)) if is_first else None, group)
            if is_first:  # the others end well: torchrun would kill the first at the first that does not
                report(fates, self.outputs.folder)

    def _note_weights(self) -> None:
        """What was loaded may be newer than what lay there a moment ago."""
        self.outputs.weights_hash = getattr(self.state, "weights_hash", self.outputs.weights_hash)

    def _finish_anyhow(self) -> None:
        """What was synthesised before the error is written all the same."""
        try:
            self.save.finish()
        except OSError as error:
            logger.debug("the last file could not be written", exc_info=error)

    def _iteration(self, engine: SupervisedEvaluator, batchdata: Any) -> dict[str, Any]:
        if isinstance(batchdata, Unread):
            if batchdata.error is not None:
                self.outputs.failed(batchdata.record, batchdata.error)
            return {}
        try:
            return super()._iteration(engine, batchdata)
        except Exception as error:  # noqa: BLE001 - as in SubjectLoader
            cause = _cause(error)
            if isinstance(cause, NoRoomError):
                raise cause from None
            for record in _records(batchdata):
                self.outputs.failed(record, cause)
            return {}

    def _about(self) -> dict[str, Any]:
        device = torch.device(self.state.device)
        return {
            "versions": {
                "hmf_networks": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "monai": monai.__version__,
                "nibabel": nibabel.__version__,
            },
            "seed": self.seed,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
            "processes": process()[1],
            "scan_backend": resolve_backend(torch.empty(0, device=device), USUAL_STATES, "auto"),
        }


@contextmanager
def signals_as_exits() -> Iterator[None]:
    """Within it SIGTERM and SIGINT leave by SystemExit, 128 and their number, past every `finally`."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # only there Python lets signals be set
        yield
        return
    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _records(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What names the outputs of a batch of one subject."""
    subject = {key: batch[key][0] for key in ("patient", "session", "layout", "output") if key in batch}
    return [subject | {"target": target} for (target,) in batch["targets"]]


def _cause(error: BaseException) -> BaseException:
    """MONAI's transforms wrap what is raised in them; the innermost error speaks to users."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error
