"""Reading ahead: the next subject is read while the network works on the last."""

from collections.abc import Iterator
from typing import Any, Protocol

from hmf_networks.background import in_background

_END = object()


class Loader(Protocol):
    """What has a length and gives batches: a DataLoader, a SubjectLoader."""

    def __len__(self) -> int:
        """Batches."""

    def __iter__(self) -> Iterator[Any]:
        """Batch after batch."""


class ReadAhead:
    """A loader whose next batch is read while its user is busy with the last; errors come in their turn."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        coming = in_background(next, batches, _END)
        while (batch := coming.result()) is not _END:
            coming = in_background(next, batches, _END)
            yield batch
