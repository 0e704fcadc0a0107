"""The processes of torchrun that share a folder of subjects: they begin together and end together."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed

PATIENCE = timedelta(days=30)  # of a process whose share is done, for the others; gloo's is half an hour


def process() -> tuple[int, int]:
    """Number of this process and how many there are, as torchrun says; a scheduler may say half of it."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


@contextmanager
def together() -> Iterator[Any]:
    """Within it the processes of torchrun can speak to each other, as the group that it gives; None alone."""
    if process()[1] == 1 and not torch.distributed.is_initialized():
        yield None
        return
    is_ours = not torch.distributed.is_initialized()
    if is_ours:
        torch.distributed.init_process_group("gloo")
    try:
        yield torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    finally:
        if is_ours:
            torch.distributed.destroy_process_group()


def agreed(action: Callable[[], None] | None, group: Any) -> None:
    """Do it in each process that has an action; where one fails, all of them raise its error."""
    error = None
    try:
        if action is not None:
            action()
    except Exception as caught:  # noqa: BLE001 - whatever it is, the others wait for it
        error = caught
    for of_one in from_all(error, group):
        if of_one is not None:
            raise of_one


def from_all(mine: Any, group: Any) -> list[Any]:
    """What each process of the group has; without a group, the own."""
    if group is None:
        return [mine]
    everywhere = [None] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(everywhere, mine, group=group)
    return everywhere
