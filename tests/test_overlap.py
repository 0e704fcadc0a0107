"""Reading ahead and writing behind: the same order, no error lost, no file missing."""

import threading

import pytest
import torch
from ignite.engine import Engine

from hmf_networks.engines.overlap import ReadAhead, WriteBehind
from hmf_networks.transforms.save import SaveSynthesisd

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


@pytest.fixture
def saver(tmp_path, monkeypatch) -> SaveSynthesisd:
    """Writes the patient's name, once `saver.may_write` is set; refuses patient "bad"."""
    save = SaveSynthesisd(output_dir=str(tmp_path), target="t2", sources=["t1"])
    save.may_write = threading.Event()

    def write(sample, _values, path):
        assert save.may_write.wait(PATIENCE)
        if sample["patient"] == "bad":
            raise OSError("disk full")
        path.parent.mkdir(parents=True)
        path.write_text(sample["patient"])

    monkeypatch.setattr(save, "_write", write)
    monkeypatch.setattr("hmf_networks.transforms.save._check_back_on_grid", lambda *_: None)
    return save


def run(saver: SaveSynthesisd, patients: list[str], *, after=str) -> None:
    def synthesise(_engine, patient):
        saver(
            {
                "patient": patient,
                "session": "",
                "layout": "brats",
                "source_paths": [""],
                "pred": torch.zeros(1, 2),
            }
        )
        after(patient)

    engine = Engine(synthesise)
    WriteBehind(saver).attach(engine)
    engine.run(patients)


def test_the_network_goes_on_while_a_file_is_written_and_all_are_there_in_the_end(saver, tmp_path):
    def first_is_not_there_yet(patient):
        if patient == "a":
            assert not list(tmp_path.rglob("*.gz"))
            saver.may_write.set()

    run(saver, ["a", "b", "c"], after=first_is_not_there_yet)
    assert sorted(path.read_text() for path in tmp_path.rglob("*.nii.gz")) == ["a", "b", "c"]


@pytest.mark.parametrize("patients", [["a", "bad"], ["a", "bad", "c"]], ids=["last", "in between"])
def test_a_file_that_cannot_be_written_ends_the_run_with_its_error(saver, patients):
    saver.may_write.set()
    with pytest.raises(OSError, match="disk full"):
        run(saver, patients)


def test_what_came_before_an_error_of_the_network_is_written_all_the_same(saver, tmp_path):
    def fail(patient):
        saver.may_write.set()
        if patient == "b":
            raise RuntimeError("no weights")

    with pytest.raises(RuntimeError, match="no weights"):
        run(saver, ["a", "b", "c"], after=fail)
    assert sorted(path.read_text() for path in tmp_path.rglob("*.nii.gz")) == ["a", "b"]


def test_after_the_run_a_call_writes_its_file_itself(saver):
    saver.may_write.set()
    run(saver, ["a"])
    assert not saver.behind
