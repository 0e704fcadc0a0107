"""Reading, network and writing side by side: the next subject is read and the last one written meanwhile.

An error in a thread arrives where it would have without: at the subject that it belongs to, or at the next.
"""

from collections.abc import Iterator
from typing import Any

from ignite.engine import Engine, Events
from torch.utils.data import DataLoader

from hmf_networks.background import in_background
from hmf_networks.transforms.save import SaveSynthesisd

_END = object()


class ReadAhead:
    """A loader whose next batch is read while its user is busy with the last."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        coming = in_background(next, batches, _END)
        while (batch := coming.result()) is not _END:
            coming = in_background(next, batches, _END)
            yield batch


class WriteBehind:
    """Handler of an evaluator: `save` writes in a thread of its own; the run ends with the last file."""

    def __init__(self, save: SaveSynthesisd) -> None:
        self.save = save

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._finish_and_raise)

    def _start(self) -> None:
        self.save.behind = True

    def _finish(self) -> None:
        self.save.finish()

    def _finish_and_raise(self, _engine: Engine, error: BaseException) -> None:
        """What was synthesised before the error is written all the same."""
        self.save.finish()
        raise error
