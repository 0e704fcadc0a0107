"""Reading ahead: the same order, no error lost. Writing behind: tests/test_subjects.py."""

import threading

import pytest
from hmf_networks.engines.overlap import ReadAhead

PATIENCE = 10  # seconds until a test gives up


class Numbers:
    """A loader of 0, 1, 2, ... that notes what was read and may break."""

    def __init__(self, size: int, *, breaks_at: int | None = None) -> None:
        self.size, self.breaks_at, self.read = size, breaks_at, threading.Semaphore(0)

    def __len__(self) -> int:
        return self.size

    def __iter__(self):
        for number in range(self.size):
            if number == self.breaks_at:
                raise ValueError(f"no {number} there")
            self.read.release()
            yield number


def test_everything_comes_in_order_and_as_often_as_one_asks():
    ahead = ReadAhead(Numbers(5))
    assert len(ahead) == 5
    assert list(ahead) == list(ahead) == [0, 1, 2, 3, 4]
    assert list(ReadAhead(Numbers(0))) == []


def test_the_next_is_read_while_the_last_is_in_use():
    numbers = Numbers(3)
    for number in ReadAhead(numbers):
        assert numbers.read.acquire(timeout=PATIENCE), "this one"
        if number == 0:
            assert numbers.read.acquire(timeout=PATIENCE), "and the next, though nobody asked yet"
            numbers.read.release()


def test_an_error_of_the_reader_arrives_after_what_was_read_before_it():
    batches = iter(ReadAhead(Numbers(4, breaks_at=2)))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(ValueError, match="no 2 there"):
        next(batches)
