"""A folder of subjects: a bad one is named and left out, the run goes on, and what is written is whole."""

import errno
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hmf_networks.atomic import write_whole
from hmf_networks.engines.subjects import SubjectEvaluator, SubjectLoader, Unread
from hmf_networks.naming import output_path
from hmf_networks.outputs.claim import claim
from hmf_networks.outputs.failure import SubjectsFailed
from hmf_networks.outputs.folder import OutputFolder
from hmf_networks.transforms.load import LoadContrastsd
from hmf_networks.transforms.save import NoRoomError, SaveSynthesisd
from hmf_networks.transforms.targets import PickTargetsd
from monai.data import Dataset
from monai.transforms import Compose

SHAPE = (6, 7, 8)
PATIENCE = 10  # seconds until a test gives up
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def records(write_nifti) -> list[dict[str, str]]:
    """Five subjects; the number of a subject is the mean of its t1."""
    noise = np.random.default_rng(0).random(SHAPE)
    return [
        {
            "patient": name,
            "session": "",
            "layout": "brats",
            "target": "t2",
            "t1": write_nifti(f"{name}_t1.nii.gz", noise - noise.mean() + number),
        }
        for number, name in enumerate("abcde", start=1)
    ]


TARGETS = ["t2", "flair", "pd"]


@pytest.fixture
def tasks(records) -> list[dict[str, str]]:
    """Of each subject three outputs."""
    return [record | {"target": target} for record in records for target in TARGETS]


class Network(torch.nn.Module):
    """Gives back its input, ten more in each channel; notes which subjects it saw, does something at one."""

    def __init__(self, num_targets: int) -> None:
        super().__init__()
        self.num_targets = num_targets
        self.seen: list[str] = []
        self.at: dict[str, Callable[[], None]] = {}

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        name = " abcde"[round(float(image.mean()))]
        self.seen.append(name)
        if name in self.at:
            self.at[name]()
        return torch.cat([image + 10 * channel for channel in range(self.num_targets)], dim=1)


class Run:
    """A run over records into `folder`."""

    def __init__(self, records: list[dict[str, str]], folder: Path, **options: bool) -> None:
        targets = list(dict.fromkeys(record["target"] for record in records))
        self.folder, self.network = folder, Network(len(targets))
        self.outputs = OutputFolder(folder, **options)
        self.save = SaveSynthesisd(output_dir=str(folder), sources=["t1"], preview=False)
        self.loader = SubjectLoader(Dataset(records, LoadContrastsd(["t1"])), self.outputs)
        self.evaluator = SubjectEvaluator(
            device=torch.device("cpu"),
            val_data_loader=self.loader,
            outputs=self.outputs,
            save=self.save,
            network=self.network,
            postprocessing=Compose([PickTargetsd(targets=targets), self.save]),
        )

    def __call__(self) -> None:
        self.evaluator.run()

    def path(self, name: str, target: str = "t2") -> Path:
        return self.folder / name / f"{name}_{target}_synth.nii.gz"

    @property
    def made(self) -> str:
        return "".join(sorted(path.parent.name for path in self.folder.rglob("*_synth.nii.gz")))

    @property
    def fates(self) -> dict[str, list[str]]:
        return {
            fate: sorted(f"{name} {target}" for name, target in outputs)
            for fate, outputs in self.outputs.fates.items()
            if outputs
        }

    @property
    def errors(self) -> dict[str, str]:
        path = self.folder / "errors.json"
        entries = json.loads(path.read_text()) if path.exists() else []
        return {entry["subject"]: entry["code"] for entry in entries}

    @property
    def litter(self) -> list[Path]:
        """Hidden files, empty folders, sidecars without a volume, once no thread reads ahead any more."""
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join(PATIENCE)
        alone = [
            path for path in self.folder.rglob("*_synth.json") if not path.with_name(f"{path.stem}.nii.gz").exists()
        ]
        empty = [path for path in self.folder.rglob("*") if path.is_dir() and not any(path.iterdir())]
        return [*self.folder.rglob(".*"), *alone, *empty]


@pytest.fixture
def run(records, tmp_path) -> Run:
    return Run(records, tmp_path / "out")


def test_subjects_come_in_order_and_all_are_made_and_written_down(run):
    run()
    assert run.network.seen == list("abcde")
    for number, name in enumerate("abcde", start=1):
        assert nibabel.load(run.path(name)).get_fdata().mean() == pytest.approx(number, abs=1e-5)
    manifest = json.loads((run.folder / "manifest.json").read_text())
    assert list(manifest["outputs"]) == [f"{name}/{name}_t2_synth.nii.gz" for name in "abcde"]
    about = manifest["run"]
    assert {key: about[key] for key in ("made", "failed", "skipped", "elsewhere", "processes", "device")} == {
        "made": 5,
        "failed": 0,
        "skipped": 0,
        "elsewhere": 0,
        "processes": 1,
        "device": "cpu",
    }
    assert run.litter == []
    assert not run.save.behind


def test_a_second_run_that_skips_loads_no_subject(run, records):
    run()
    again = Run(records, run.folder, skip_existing=True)
    again()
    assert again.network.seen == []
    assert len(again.outputs.fates["skipped"]) == 5


def test_the_same_run_can_be_started_twice(run):
    run()
    with pytest.raises(FileExistsError):
        run()
    run.outputs.overwrite = True
    run()
    assert run.network.seen == list("abcdeabcde")
    assert len(run.outputs.fates["made"]) == 5


@pytest.mark.parametrize("bad", ["a", "c", "e"])
def test_one_bad_file_is_named_the_others_are_done_and_the_end_is_an_error(run, records, bad):
    Path(records["abcde".index(bad)]["t1"]).write_bytes(b"no volume")
    with pytest.raises(SubjectsFailed, match=rf"^1 volume\(s\) of 1 subject\(s\) .* \({bad}\), 4 could"):
        run()
    assert run.made == "abcde".replace(bad, "")
    assert run.errors == {bad: "E_NOT_NIFTI"}
    assert run.litter == []


def test_a_record_without_its_source_or_without_a_name_is_named(run, records):
    del records[1]["t1"]
    records[3]["patient"] = "../../d"
    with pytest.raises(SubjectsFailed):
        run()
    assert run.errors == {"b": "E_MISSING", "'../../d'": "E_NAME"}
    assert run.made == "ace"


def test_when_all_fail_nothing_is_made(run, records):
    for record in records:
        Path(record["t1"]).unlink()
    with pytest.raises(SubjectsFailed, match=r"5 volume\(s\) of 5 subject\(s\) .*, 0 could"):
        run()
    assert run.network.seen == []
    assert set(run.errors.values()) == {"E_MISSING"}
    assert sorted(path.name for path in run.folder.rglob("*")) == ["errors.json", "manifest.json"]


def broken(*_: object) -> None:
    raise RuntimeError("a bug in the network")


def test_an_error_in_the_network_names_its_own_subject(run):
    run.network.at["c"] = broken
    with pytest.raises(SubjectsFailed, match=r"\(c\), 4 could"):
        run()
    (entry,) = json.loads((run.folder / "errors.json").read_text())
    assert (entry["subject"], entry["code"]) == ("c", "E_FAILED")
    assert entry["cause"] == "RuntimeError: a bug in the network"
    assert run.made == "abde"


def test_a_subject_that_failed_once_and_is_made_later_is_named_no_more(run, records):
    run.network.at["c"] = broken
    with pytest.raises(SubjectsFailed):
        run()
    Run(records, run.folder, skip_existing=True)()
    assert run.made == "abcde"
    assert not (run.folder / "errors.json").exists()


def refuse_to_write(monkeypatch, name: str, number: int) -> None:
    def write(path, content):
        if Path(path).name == f"{name}_t2_synth.nii.gz":
            raise OSError(number, os.strerror(number))
        write_whole(path, content)

    monkeypatch.setattr("hmf_networks.transforms.save.write_whole", write)


def test_an_output_that_cannot_be_written_names_its_own_subject(run, monkeypatch):
    refuse_to_write(monkeypatch, "b", errno.EACCES)
    with pytest.raises(SubjectsFailed):
        run()
    assert run.errors == {"b": "E_WRITE"}
    assert run.made == "acde"
    assert run.litter == []


def test_without_room_the_run_ends_at_once_and_nothing_is_half_written(run, monkeypatch, records):
    refuse_to_write(monkeypatch, "b", errno.ENOSPC)
    with pytest.raises(NoRoomError, match=r"b_t2_synth\.nii\.gz cannot be written: No space left"):
        run()
    assert run.network.seen == list("abc")
    assert run.made == "a"
    assert run.errors == {"b": "E_WRITE"}
    assert run.litter == []
    monkeypatch.undo()
    Run(records, run.folder, skip_existing=True)()
    assert run.made == "abcde"


def test_without_room_for_the_last_the_run_ends_with_that_error(run, monkeypatch):
    refuse_to_write(monkeypatch, "e", errno.ENOSPC)
    with pytest.raises(NoRoomError):
        run()
    assert run.made == "abcd"


def test_the_file_of_a_subject_is_there_before_the_one_after_the_next_begins(run):
    """Memory holds at most one volume to be written beside the one at work."""
    for name, earlier in zip("cde", "abc", strict=True):
        run.network.at[name] = lambda earlier=earlier: there.append(run.path(earlier).exists())
    there: list[bool] = []
    run()
    assert there == [True, True, True]


def test_the_next_subject_is_at_work_while_a_file_is_written(run, monkeypatch):
    second_began = threading.Event()
    run.network.at["b"] = second_began.set

    def write(path, content):
        assert second_began.wait(PATIENCE)
        write_whole(path, content)

    monkeypatch.setattr("hmf_networks.transforms.save.write_whole", write)
    run()
    assert run.made == "abcde"


def test_what_another_process_is_making_comes_last_and_is_left_to_it(run, records):
    other = OutputFolder(run.folder)
    for record in records[:2]:
        assert other.claim(record) == "free"

    def both_end() -> None:
        """The other makes one of its two, and gives up the other."""
        path = run.folder / output_path(records[0], "t2")
        write_whole(path, "made by the other")
        other.written(records[0], "0", {})
        other.release_all()

    run.network.at["e"] = both_end
    run()
    assert run.network.seen == list("cdeb")
    assert run.path("a").read_text() == "made by the other"
    assert {fate: "".join(name for name, _ in made) for fate, made in run.outputs.fates.items()} == {
        "made": "cdeb",
        "elsewhere": "a",
        "skipped": "",
        "failed": "",
    }
    assert run.litter == []


@pytest.mark.parametrize(
    ("rank", "world_size", "share"), [(0, 1, "abcde"), (0, 2, "ace"), (1, 2, "bd"), (4, 7, "e"), (6, 7, "")]
)
def test_the_processes_of_torchrun_share_the_subjects(run, monkeypatch, rank, world_size, share):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    assert len(run.loader) == 5  # half of what torchrun says: a scheduler's
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert len(run.loader) == len(share)
    assert [batch["patient"] for batch in run.loader] == [[name] for name in share]


def as_torchrun(
    records: list[dict[str, str]], folder: Path, *, late: float = 0.0, error: Exception | None = None
) -> list[int]:
    """Exit codes of the two processes; the second is late in looking at the folder, or fails to."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def work(rank: int) -> None:
        os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT=str(port))
        run = Run(records, folder)
        look = run.outputs.open

        def look_late(records: list) -> None:
            time.sleep(late * rank)
            if rank and error is not None:
                raise error
            look(records)

        run.outputs.open = look_late
        try:
            run()
        except SubjectsFailed:
            os._exit(2)
        except ValueError as raised:
            os._exit(1 if error is not None and raised.args == error.args else 3)
        os._exit(0)

    processes = [FORK.Process(target=work, args=(rank,)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_a_process_that_is_late_finds_what_another_made_and_its_report_is_one(run, records):
    Path(records[1]["t1"]).write_bytes(b"no volume")  # of the second
    assert as_torchrun(records, run.folder, late=1.0) == [2, 0]
    assert (run.made, run.errors) == ("acde", {"b": "E_NOT_NIFTI"})
    about = json.loads((run.folder / "manifest.json").read_text())["run"]
    assert (about["processes"], about["made"], about["failed"]) == (2, 4, 1)
    assert run.litter == []


def test_where_one_process_cannot_begin_none_does(run, records):
    assert as_torchrun(records, run.folder, error=ValueError("no folder")) == [1, 1]
    assert run.made == ""


def test_a_loader_gives_a_batch_for_each_subject_or_the_reason_why_not(run, records):
    Path(records[1]["t1"]).write_bytes(b"no volume")
    items = list(run.loader)
    assert items[0]["image"].shape == (1, 1, *SHAPE)
    assert isinstance(items[1], Unread)
    assert items[1].error.code == "E_NOT_NIFTI"
    assert items[1].record["patient"] == "b"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_with_its_code_and_the_file_in_writing_whole(run, monkeypatch, number, code, records):
    signalled = threading.Event()
    before = [signal.getsignal(which) for which in (signal.SIGTERM, signal.SIGINT)]

    def strike() -> None:
        signalled.set()
        signal.raise_signal(number)

    def write(path, content):
        assert signalled.wait(PATIENCE)
        write_whole(path, content)

    run.network.at["b"] = strike
    monkeypatch.setattr("hmf_networks.transforms.save.write_whole", write)
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == code
    assert [signal.getsignal(which) for which in (signal.SIGTERM, signal.SIGINT)] == before
    assert run.made == "a"
    assert nibabel.load(run.path("a")).get_fdata().mean() == pytest.approx(1, abs=1e-5)
    assert run.litter == []
    assert run.errors == {}
    Run(records, run.folder, skip_existing=True)()
    assert run.made == "abcde"


def test_a_signal_while_a_file_is_awaited_leaves_it_whole_and_written_down(run, monkeypatch):
    """The second subject is done and waits for the first one's file."""
    main_thread = threading.main_thread().ident

    def write(path, content):
        if Path(path).name == "a_t2_synth.nii.gz":
            run.network.may_go.wait(PATIENCE)
            signal.pthread_kill(main_thread, signal.SIGTERM)
            threading.Event().wait(0.2)
        write_whole(path, content)

    run.network.may_go = threading.Event()
    run.network.at["b"] = run.network.may_go.set
    monkeypatch.setattr("hmf_networks.transforms.save.write_whole", write)
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 143
    assert run.made == "a"
    assert list(run.outputs.manifest.outputs()) == ["a/a_t2_synth.nii.gz"]
    assert run.errors == {}
    assert run.litter == []


def test_a_signal_while_another_process_is_waited_for_ends_the_run_and_its_threads(run, records):
    busy = claim(run.folder / output_path(records[0], "t2"), run.folder)
    threads = set(threading.enumerate())
    timer = threading.Timer(
        0.5, signal.pthread_kill, (threading.main_thread().ident, signal.SIGTERM)
    )  # by then the others are done
    timer.start()
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 143
    for thread in set(threading.enumerate()) - threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "it would keep the process from ending"
    busy.release()
    assert run.made == "bcde"
    assert run.litter == []


def test_signals_are_left_alone_where_a_run_is_not_in_the_main_thread(run):
    ended = []
    thread = threading.Thread(target=lambda: ended.append(run()))
    thread.start()
    thread.join(PATIENCE)
    assert ended == [None]
    assert run.made == "abcde"


def test_an_error_that_is_no_subjects_fault_ends_the_run_and_gives_all_back(run):
    def interrupt() -> None:
        raise KeyboardInterrupt

    run.network.at["c"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        run()
    assert run.made == "ab"
    assert run.litter == []


# Several outputs of a subject


def test_the_network_runs_once_for_all_outputs_of_a_subject(tasks, tmp_path):
    run = Run(tasks, tmp_path / "out")
    run()
    assert run.network.seen == list("abcde")
    for number, name in enumerate("abcde", start=1):
        for channel, target in enumerate(TARGETS):
            values = nibabel.load(run.path(name, target)).get_fdata()
            assert values.mean() == pytest.approx(number + 10 * channel, abs=1e-5)
    assert run.fates == {"made": sorted(f"{task['patient']} {task['target']}" for task in tasks)}
    about = json.loads((run.folder / "manifest.json").read_text())
    assert len(about["outputs"]) == about["run"]["made"] == 15
    assert about["run"]["targets"] == sorted(TARGETS)
    assert run.litter == []


def test_outputs_from_other_sources_are_another_run_of_the_network(records, tmp_path, write_nifti):
    both = records[0] | {"t2": write_nifti("a_t2.nii.gz", np.random.default_rng(1).random(SHAPE) + 1)}
    run = Run([both | {"target": target} for target in ("pd", "flair", "t2")], tmp_path / "out")
    run.outputs.sources = ("t1", "t2")  # t2 is a source of pd and flair, but not of itself
    run()
    assert run.network.seen == ["a", "a"]
    assert run.fates == {"made": ["a flair", "a pd", "a t2"]}


def test_an_output_that_stands_keeps_no_other_of_its_subject_back(tasks, tmp_path):
    Run([task for task in tasks if task["target"] == "flair"], tmp_path / "out")()
    run = Run(tasks, tmp_path / "out", skip_existing=True)
    before = run.path("a", "flair").stat().st_mtime_ns
    run()
    assert run.network.seen == list("abcde")
    assert run.fates["skipped"] == [f"{name} flair" for name in "abcde"]
    assert run.fates["made"] == sorted(f"{name} {target}" for name in "abcde" for target in ("pd", "t2"))
    assert run.path("a", "flair").stat().st_mtime_ns == before


def test_nor_does_one_that_may_not_be_replaced(tasks, tmp_path):
    run = Run(tasks, tmp_path / "out", skip_existing=True)
    write_whole(run.path("a", "pd"), "of somebody else")
    with pytest.raises(SubjectsFailed, match=r"^1 volume\(s\) of 1 subject\(s\) .* \(a\), 14 could"):
        run()
    assert run.fates["failed"] == ["a pd"]
    assert run.path("a", "pd").read_text() == "of somebody else"


def test_a_bad_source_fails_all_outputs_of_its_subject_and_names_it_once(tasks, records, tmp_path, caplog):
    Path(records[2]["t1"]).write_bytes(b"no volume")
    run = Run(tasks, tmp_path / "out")
    with pytest.raises(SubjectsFailed, match=r"^3 volume\(s\) of 1 subject\(s\) .* \(c\), 12 could"):
        run()
    entries = json.loads((run.folder / "errors.json").read_text())
    assert [(entry["subject"], entry["target"]) for entry in entries] == [("c", "flair"), ("c", "pd"), ("c", "t2")]
    assert {entry["code"] for entry in entries} == {"E_NOT_NIFTI"}
    assert len([text for text in caplog.messages if "c left out" in text]) == 1
    assert run.made == "aaabbbdddeee"
    assert run.litter == []


def test_an_error_in_the_network_fails_all_outputs_of_its_subject(tasks, tmp_path):
    run = Run(tasks, tmp_path / "out")
    run.network.at["b"] = broken
    with pytest.raises(SubjectsFailed):
        run()
    assert run.fates["failed"] == ["b flair", "b pd", "b t2"]
    assert run.made == "aaacccdddeee"
    assert run.litter == []


def test_what_another_process_makes_of_a_subject_is_left_to_it_and_the_rest_is_made(tasks, tmp_path):
    run = Run(tasks, tmp_path / "out")
    other = OutputFolder(run.folder)
    assert [other.claim(task) for task in tasks[:2]] == ["free", "free"]  # of a: t2 and flair

    def both_end() -> None:
        write_whole(run.path("a", "t2"), "made by the other")
        other.written(tasks[0], "0", {})
        other.release_all()

    run.network.at["e"] = both_end
    run()
    assert run.network.seen == list("abcdea")  # for pd, and in the end for the flair that was given up
    assert run.fates["elsewhere"] == ["a t2"]
    assert len(run.fates["made"]) == 14
    assert run.litter == []


@pytest.mark.parametrize(("rank", "share"), [(0, "ace"), (1, "bd")])
def test_a_subject_is_one_process_s_with_all_its_outputs(tasks, tmp_path, monkeypatch, rank, share):
    for name, value in {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, str(value))
    loader = Run(tasks, tmp_path / "out").loader
    items = list(loader)
    assert len(loader) == len(items) == 3 * len(share)
    batches = [item for item in items if not isinstance(item, Unread)]
    assert [batch["patient"] for batch in batches] == [[name] for name in share]
    assert [[target for (target,) in batch["targets"]] for batch in batches] == [TARGETS] * len(share)


def test_two_processes_make_all_outputs_and_one_report(tasks, records, tmp_path):
    Path(records[1]["t1"]).write_bytes(b"no volume")
    assert as_torchrun(tasks, tmp_path / "out") == [2, 0]
    about = json.loads((tmp_path / "out" / "manifest.json").read_text())["run"]
    assert (about["processes"], about["made"], about["failed"]) == (2, 12, 3)


def test_the_next_subject_is_read_while_the_network_works_on_all_outputs_of_one(tasks, tmp_path):
    run = Run(tasks, tmp_path / "out")
    read, second_was_read = run.loader.dataset.transform, threading.Event()

    def note(record):
        if record["patient"] == "b":
            second_was_read.set()
        return read(record)

    run.loader.dataset.transform = note
    run.network.at["a"] = lambda: waited.append(second_was_read.wait(PATIENCE))
    waited: list[bool] = []
    run()
    assert waited == [True]


def test_a_signal_leaves_all_outputs_of_the_subject_in_writing_whole_and_the_next_run_completes(
    tasks, tmp_path, monkeypatch
):
    run, signalled = Run(tasks, tmp_path / "out"), threading.Event()

    def strike() -> None:
        signalled.set()
        signal.raise_signal(signal.SIGTERM)

    def write(path, content):
        assert signalled.wait(PATIENCE)
        write_whole(path, content)

    run.network.at["b"] = strike
    monkeypatch.setattr("hmf_networks.transforms.save.write_whole", write)
    with pytest.raises(SystemExit):
        run()
    assert run.made == "aaa"
    assert run.litter == []
    monkeypatch.undo()
    again = Run(tasks, run.folder, skip_existing=True)
    again()
    assert again.network.seen == list("bcde")
    assert again.made == "aaabbbcccdddeee"


def test_without_room_for_one_output_the_run_ends_and_those_before_it_are_whole(tasks, tmp_path, monkeypatch):
    def write(path, content):
        if Path(path).name == "b_flair_synth.nii.gz":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_whole(path, content)

    run = Run(tasks, tmp_path / "out")
    monkeypatch.setattr("hmf_networks.transforms.save.write_whole", write)
    with pytest.raises(NoRoomError, match=r"b_flair_synth\.nii\.gz cannot be written"):
        run()
    assert run.made == "aaab"
    assert run.errors == {"b": "E_WRITE"}
    assert run.litter == []
