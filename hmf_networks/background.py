"""Work in a thread that ends with it."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


def in_background(function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
    """Call in a thread of its own; `result()` of what comes back waits, and raises what was raised.

    The thread does not wait for more: OpenMP counts the threads that once ran a parallel loop, and where they
    are more than the processors all loops of the process get slower.
    """
    executor = ThreadPoolExecutor(1)
    future = executor.submit(function, *arguments)
    executor.shutdown(wait=False)
    return future
