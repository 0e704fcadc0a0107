"""The output folder: nothing replaced unasked, nothing made twice, everything written down, no litter."""

import errno
import hashlib
import json
import multiprocessing
import pickle
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hmf_networks.atomic import sweep, write_whole
from hmf_networks.hashing import file_hash
from hmf_networks.naming import beside, output_path
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.outputs import bids
from hmf_networks.outputs.claim import claim
from hmf_networks.outputs.failure import SUBJECT_ERRORS, SubjectError, SubjectsFailed, failure
from hmf_networks.outputs.folder import OutputFolder, report
from hmf_networks.outputs.manifest import Manifest

PATIENCE = 10  # seconds until a test gives up
FORK = multiprocessing.get_context("fork")


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Claims


def test_of_two_claims_one_gets_the_file(tmp_path):
    first = claim(tmp_path / "a" / "a.nii.gz", tmp_path)
    assert claim(tmp_path / "a" / "a.nii.gz", tmp_path) is None
    assert claim(tmp_path / "a" / "b.nii.gz", tmp_path) is not None  # another file of the same folder
    first.release()
    assert claim(tmp_path / "a" / "a.nii.gz", tmp_path) is not None


def test_of_many_threads_one_gets_the_file(tmp_path):
    begin, got = threading.Barrier(8), []

    def try_it():
        begin.wait(PATIENCE)
        got.append(claim(tmp_path / "a" / "a.nii.gz", tmp_path))

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sum(mine is not None for mine in got) == 1


def test_a_claim_holds_against_another_process_and_ends_with_it(tmp_path):
    here, there = FORK.Pipe()

    def hold():
        mine = claim(tmp_path / "a.nii.gz", tmp_path)
        there.send(mine is not None)
        there.recv()  # until it is killed

    process = FORK.Process(target=hold)
    process.start()
    try:
        assert here.poll(PATIENCE)
        assert here.recv()
        assert claim(tmp_path / "a.nii.gz", tmp_path) is None
    finally:
        process.kill()
        process.join(PATIENCE)
    mine = claim(tmp_path / "a.nii.gz", tmp_path)
    assert mine is not None
    mine.release()
    assert files_in(tmp_path) == []  # the killed one's lock included


def test_after_a_release_no_lock_and_no_empty_folder_is_left(tmp_path):
    mine = claim(tmp_path / "a" / "a.nii.gz", tmp_path)
    mine.release()
    assert files_in(tmp_path) == []
    mine.release()  # once more does no harm
    mine = claim(tmp_path / "a" / "b" / "c" / "a.nii.gz", tmp_path)
    mine.release()
    assert files_in(tmp_path) == []
    mine = claim(tmp_path / "a" / "a.nii.gz", tmp_path)
    mine.path.write_bytes(b"made")
    mine.release()
    assert files_in(tmp_path) == ["a", "a/a.nii.gz"]


def test_a_file_in_the_way_of_a_folder_is_an_error_and_no_endless_wait(tmp_path):
    (tmp_path / "a").write_text("a file")
    (tmp_path / "b").symlink_to(tmp_path / "absent")
    for name in "ab":
        with pytest.raises(FileExistsError):
            claim(tmp_path / name / "a.nii.gz", tmp_path, wait=True)


def test_a_waiting_claim_gets_the_file_after_the_release(tmp_path):
    first, got = claim(tmp_path / "a" / "a.nii.gz", tmp_path), []
    waiting = threading.Thread(target=lambda: got.append(claim(tmp_path / "a" / "a.nii.gz", tmp_path, wait=True)))
    waiting.start()
    waiting.join(0.1)
    assert got == []
    first.release()
    waiting.join(PATIENCE)
    assert got[0] is not None
    assert claim(tmp_path / "a" / "a.nii.gz", tmp_path) is None
    got[0].release()
    assert files_in(tmp_path) == []


def test_a_claim_changes_hands_many_times_and_is_never_held_twice(tmp_path):
    """Releasing removes the lock's file, which others may just be opening."""
    holders, most, done = [], [], []

    def take_turns():
        for _ in range(30):
            mine = None
            while mine is None:
                mine = claim(tmp_path / "a" / "a.nii.gz", tmp_path)
            holders.append(1)
            most.append(len(holders))
            holders.pop()
            mine.release()
        done.append(1)

    threads = [threading.Thread(target=take_turns) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (len(done), max(most)) == (3, 1)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("name", ["a_t2_synth.nii.gz", "a[1]*?.nii", "sub-01_desc-synth_T2w.nii.gz"])
def test_the_litter_of_a_killed_writer_is_swept_with_a_claim(tmp_path, name):
    stem = name.removesuffix(".gz").removesuffix(".nii")
    for suffix in (name.removeprefix(stem), ".json", ".png"):
        (tmp_path / f".{stem}{suffix}.{'0123456789abcdef' * 2}.part").write_bytes(b"half")
    others = [f".{stem}{other}.{'0123456789abcdef' * 2}.part" for other in ("b.nii.gz", ".run2.nii.gz")]
    for other in others:
        (tmp_path / other).write_bytes(b"of another output")
    (tmp_path / f"{stem}.json").write_bytes(b"whole")
    claim(tmp_path / name, tmp_path).release()
    assert files_in(tmp_path) == sorted([*others, f"{stem}.json"])


def test_sweeping_knows_the_parts_that_write_whole_leaves(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *_: None)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # killed before it could clean up
    write_whole(tmp_path / "a.nii.gz", b"half")
    monkeypatch.undo()
    assert len(files_in(tmp_path)) == 1
    sweep(tmp_path / "a.nii.gz")
    assert files_in(tmp_path) == []


# The manifest


def made(name: str, target: str = "t2", sha256: str = "0") -> dict[str, dict]:
    entry = {"subject": name, "target": target, "sha256": sha256, "sources": {}, "weights_sha256": None}
    entry["finished"] = 0.0
    return {f"{name}/{name}.nii.gz": entry}


def failed(name: str, target: str = "t2") -> dict[str, str]:
    return {"subject": name, "target": target, "code": "E_FAILED", "cause": "x", "cure": "y"}


def test_two_writers_of_a_manifest_lose_nothing(tmp_path):
    def write(start: int) -> None:
        for number in range(start, 40, 2):
            Manifest(tmp_path).update(made=made(f"{number:02d}"), failed=failed(f"bad{number:02d}"))

    process = FORK.Process(target=write, args=(0,))
    process.start()
    write(1)
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert list(Manifest(tmp_path).outputs()) == [f"{n:02d}/{n:02d}.nii.gz" for n in range(40)]
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert [entry["subject"] for entry in errors] == [f"bad{number:02d}" for number in range(40)]
    assert files_in(tmp_path) == ["errors.json", "manifest.json"]


def test_errors_go_when_their_subjects_are_made_and_the_file_with_the_last(tmp_path):
    manifest = Manifest(tmp_path)
    for name in ("b", "a", "b"):
        manifest.update(failed=failed(name))
    errors = tmp_path / "errors.json"
    assert json.loads(errors.read_text()) == [failed("a"), failed("b")]  # each once, sorted
    manifest.update(made=made("a"))
    assert json.loads(errors.read_text()) == [failed("b")]
    manifest.update(made=made("b", "t1"), failed=failed("b", "flair"))  # other contrasts
    assert json.loads(errors.read_text()) == [failed("b", "flair"), failed("b")]
    manifest.update(fine=[("b", "flair")])
    assert json.loads(errors.read_text()) == [failed("b")]
    manifest.update(made=made("b"))
    assert not errors.exists()


def test_a_manifest_keeps_outputs_of_earlier_runs_and_tells_of_the_last(tmp_path):
    Manifest(tmp_path).update(made=made("a", sha256="1"), run={"target": "t1"})
    Manifest(tmp_path).update(made=made("b"), run={"target": "t2"})
    Manifest(tmp_path).update(made=made("a", sha256="2"))
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content == {"run": {"target": "t2"}, "outputs": {**made("a", sha256="2"), **made("b")}}


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"\xff\xfe", b'{"outputs": []}', b'{"run": 3}', b'{"name": "of another program"}', b"[" * 100_000],
)
def test_an_unreadable_manifest_is_moved_aside(tmp_path, caplog, content):
    (tmp_path / "manifest.json").write_bytes(content)
    manifest = Manifest(tmp_path)
    assert manifest.outputs() == {}
    manifest.update(made=made("a"))
    assert manifest.outputs() == made("a")
    assert (tmp_path / "manifest-unreadable-1.json").read_bytes() == content
    assert "cannot be read: moved to manifest-unreadable-1.json" in caplog.text


def test_of_two_damaged_manifests_both_are_kept(tmp_path):
    for number in (1, 2):
        (tmp_path / "manifest.json").write_text("{")
        assert Manifest(tmp_path).outputs() == {}
        assert (tmp_path / "manifest.json").exists()  # until it is written anew, alone
        Manifest(tmp_path).update(made=made("a"))
        assert (tmp_path / f"manifest-unreadable-{number}.json").read_text() == "{"


@pytest.mark.parametrize("entry", [1, {}, {**made("b")["b/b.nii.gz"], "sources": []}])
def test_an_entry_of_another_version_is_not_relied_on_and_the_others_are(tmp_path, entry):
    content = {"outputs": {"b": entry, **made("a")}}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    Manifest(tmp_path).check()
    assert Manifest(tmp_path).outputs() == made("a")


@pytest.mark.parametrize(
    ("name", "content"), [("manifest.json", '{"name": "web app"}'), ("errors.json", "{}"), ("errors.json", "[1]")]
)
def test_a_file_of_another_program_under_such_a_name_stops_the_run(folder, record, name, content):
    write_whole(folder / name, content)
    with pytest.raises(ValueError, match=rf"{name} is not one of ours and would be lost; choose another"):
        OutputFolder(folder, overwrite=True).open([record])
    assert (folder / name).read_text() == content


def test_a_manifest_that_cannot_be_read_or_written_is_one_line(folder, record, monkeypatch):
    (folder / "manifest.json").mkdir(parents=True)
    with pytest.raises(PermissionError, match=r"manifest.json cannot be read \(Is a directory\)"):
        OutputFolder(folder).open([record])
    (folder / "manifest.json").rmdir()
    outputs = OutputFolder(folder)
    outputs.open([record])
    monkeypatch.setattr("hmf_networks.outputs.manifest.write_whole", no_room)
    with pytest.raises(PermissionError, match=r"manifest.json cannot be written \(No space left"):
        outputs.close({}, {"made": []})


def no_room(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("content", [b"[", b"{}", b"[1]", b'[{"code": "E_FAILED"}]'])
def test_unreadable_errors_are_moved_aside(tmp_path, content):
    (tmp_path / "errors.json").write_bytes(content)
    Manifest(tmp_path).update(failed=failed("a"))
    assert json.loads((tmp_path / "errors.json").read_text()) == [failed("a")]
    assert (tmp_path / "errors-unreadable-1.json").read_bytes() == content


# The folder


@pytest.fixture
def record(tmp_path) -> dict[str, str]:
    paths = {name: tmp_path / "in" / f"{name}.nii.gz" for name in ("t1", "flair")}
    for name, path in paths.items():
        write_whole(path, name)
    return {"patient": "a", "session": "", "layout": "brats", "target": "t2"} | {
        key: str(path) for key, path in paths.items()
    }


@pytest.fixture
def weights(tmp_path) -> Path:
    write_whole(tmp_path / "model.pt", "weights")
    return tmp_path / "model.pt"


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "out"


def make(outputs: OutputFolder, record: dict[str, str], content: str = "a volume") -> Path:
    """As SaveSynthesisd does it."""
    path = outputs.folder / output_path(record, record["target"])
    sources = {name: file_hash(record[name]) for name in ("t1", "flair")}
    sidecar = {
        "Sha256": hashlib.sha256(content.encode()).hexdigest(),
        "SourcesSha256": sources,
        "WeightsSha256": outputs.weights_hash,
        "SettingsSha256": outputs.settings_hash(),
        "GeneratedBy": bids.GENERATOR,
    }
    write_whole(beside(path, ".json"), json.dumps(sidecar))
    write_whole(path, content)
    outputs.written(record, file_hash(path), sources)
    return path


@pytest.fixture
def earlier(folder, record, weights) -> Path:
    """The output of an earlier run."""
    outputs = OutputFolder(folder, weights_path=str(weights))
    outputs.open([record])
    assert outputs.claim(record) == "free"
    return make(outputs, record)


def again(folder: Path, record: dict[str, str], weights: Path, **options: Any) -> tuple[str, OutputFolder]:
    outputs = OutputFolder(folder, weights_path=str(weights), **options)
    outputs.open([record])
    standing = outputs.claim(record)
    outputs.release_all()
    return standing, outputs


def test_what_is_written_stands_in_the_manifest_with_all_it_depends_on(folder, record, weights):
    outputs = OutputFolder(folder, weights_path=str(weights), settings={"plane": "axial"})
    outputs.open([record])
    assert outputs.claim(record) == "free"
    assert OutputFolder(folder, overwrite=True).claim(record) == "busy"
    path = make(outputs, record)
    entry = json.loads((folder / "manifest.json").read_text())["outputs"]["a/a_t2_synth.nii.gz"]
    assert entry["sha256"] == file_hash(path)
    assert entry["weights_sha256"] == file_hash(weights)
    assert entry["sources"] == {name: file_hash(record[name]) for name in ("t1", "flair")}
    assert entry["settings_sha256"] == outputs.settings_hash()
    assert (entry["subject"], entry["target"]) == ("a", "t2")
    assert abs(entry["finished"] - time.time()) < PATIENCE
    assert outputs.fates == {"made": [("a", "t2")], "skipped": [], "elsewhere": [], "failed": []}
    assert files_in(folder) == ["a", "a/a_t2_synth.json", "a/a_t2_synth.nii.gz", "manifest.json"]


def test_the_hash_of_the_settings_depends_on_them_and_not_on_their_order(folder):
    hashes = [
        OutputFolder(folder, settings=settings).settings_hash()
        for settings in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3})
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_outputs_that_exist_stop_the_run_before_it_begins(folder, record, weights, earlier):
    other = {"patient": "b", "session": "", "layout": "brats", "target": "t2"}
    outputs = OutputFolder(folder, weights_path=str(weights))
    with pytest.raises(FileExistsError, match=rf"^1 output\(s\) exist already, e\.g\. {earlier}; ask for overwrite"):
        outputs.open([other, record])
    outputs.open([other])
    OutputFolder(folder).open([record | {"target": "t1"}])


def test_an_output_that_appears_during_the_run_is_left_to_who_made_it(folder, record):
    outputs = OutputFolder(folder)
    outputs.open([record])
    other = OutputFolder(folder)
    other.claim(record)
    path = make(other, record, "made by the other")
    assert outputs.claim(record) == "done"
    assert outputs.fates["elsewhere"] == [("a", "t2")]
    assert path.read_text() == "made by the other"


@pytest.mark.usefixtures("earlier")
def test_with_overwrite_it_is_made_again_but_not_what_another_run_makes_meanwhile(folder, record, weights):
    time.sleep(0.01)  # the manifest tells times to the millisecond
    standing, _ = again(folder, record, weights, overwrite=True)
    assert standing == "free"
    outputs = OutputFolder(folder, overwrite=True)
    outputs.open([record])
    time.sleep(0.01)
    other = OutputFolder(folder, overwrite=True)
    other.open([record])
    assert other.claim(record) == "free"
    make(other, record)
    assert outputs.claim(record) == "done"
    assert outputs.fates["elsewhere"] == [("a", "t2")]


def test_with_skip_existing_what_is_as_it_was_is_left_alone(folder, record, weights, earlier):
    before = earlier.stat().st_mtime_ns
    standing, outputs = again(folder, record, weights, skip_existing=True)
    assert standing == "done"
    assert outputs.fates["skipped"] == [("a", "t2")]
    assert earlier.stat().st_mtime_ns == before
    assert files_in(folder) == ["a", "a/a_t2_synth.json", "a/a_t2_synth.nii.gz", "manifest.json"]


def change_output(earlier: Path, _record: dict[str, str], _weights: Path) -> None:
    earlier.write_text("a broken volume")


def change_source(_earlier: Path, record: dict[str, str], _weights: Path) -> None:
    Path(record["flair"]).write_text("a new scan")


def drop_source(_earlier: Path, record: dict[str, str], _weights: Path) -> None:
    del record["flair"]


def change_weights(_earlier: Path, _record: dict[str, str], weights: Path) -> None:
    weights.write_text("better weights")


def drop_sidecar(earlier: Path, _record: dict[str, str], _weights: Path) -> None:
    beside(earlier, ".json").unlink()


def other_sidecar(earlier: Path, _record: dict[str, str], _weights: Path) -> None:
    """Killed between sidecar and volume."""
    beside(earlier, ".json").write_text('{"Sha256": "of a newer volume"}')


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_output, "it is not what was written, by its hash"),
        (change_source, "its sources have changed"),
        (drop_source, "its sources have changed"),
        (change_weights, "it was made with other weights"),
        (drop_sidecar, "its sidecar is lost"),
        (other_sidecar, "its sidecar is lost"),
    ],
)
def test_with_skip_existing_what_has_changed_is_made_again_and_the_reason_told(
    folder, record, weights, earlier, caplog, change, reason
):
    change(earlier, record, weights)
    standing, _ = again(folder, record, weights, skip_existing=True)
    assert standing == "free"
    assert f"a/a_t2_synth.nii.gz is made again: {reason}" in caplog.text


def test_with_skip_existing_a_new_source_is_a_reason_unless_it_may_not_be_used(
    folder, record, weights, earlier, tmp_path, caplog
):
    write_whole(tmp_path / "pd.nii.gz", "pd")
    record["pd"] = str(tmp_path / "pd.nii.gz")
    assert again(folder, record, weights, skip_existing=True, given=["t1", "flair"])[0] == "done"
    assert again(folder, record, weights, skip_existing=True, sources=["t1", "flair"])[0] == "done"
    assert again(folder, record, weights, skip_existing=True)[0] == "free"
    assert f"a/{earlier.name} is made again: its sources have changed" in caplog.text


def test_outputs_of_one_subject_are_claimed_made_and_skipped_one_by_one(folder, record, weights, earlier):
    pd = record | {"target": "pd"}
    outputs = OutputFolder(folder, weights_path=str(weights), skip_existing=True)
    outputs.open([record, pd])
    assert [outputs.claim(record), outputs.claim(pd)] == ["done", "free"]
    assert OutputFolder(folder, skip_existing=True).claim(pd) == "busy"
    make(outputs, pd)
    assert outputs.fates["skipped"] == [("a", "t2")]
    assert outputs.fates["made"] == [("a", "pd")]
    assert {entry["target"] for entry in outputs.manifest.outputs().values()} == {"t2", "pd"}
    assert earlier.read_text() == "a volume"


def test_a_record_that_does_not_say_what_to_make_stops_the_run(folder, record):
    del record["target"]
    with pytest.raises(ValueError, match=r"'patient': 'a'.* does not say what to make: give it a target"):
        OutputFolder(folder).open([record])


def test_an_output_of_the_version_before_whose_sidecar_tells_no_settings_is_left_alone(
    folder, record, weights, earlier
):
    sidecar = json.loads(beside(earlier, ".json").read_text())
    sidecar.pop("SettingsSha256")
    beside(earlier, ".json").write_text(json.dumps(sidecar))
    assert again(folder, record, weights, skip_existing=True)[0] == "done"


@pytest.mark.usefixtures("earlier")
def test_with_skip_existing_other_settings_are_a_reason_too(folder, record, weights, caplog):
    again(folder, record, weights, skip_existing=True, settings={"volume": 1})
    assert "a/a_t2_synth.nii.gz is made again: it was made with other settings" in caplog.text


@pytest.mark.parametrize("manifest", [None, "{", '{"run": {}, "outputs": {}}'])
def test_where_the_manifest_is_lost_an_output_is_known_by_its_sidecar(folder, record, weights, earlier, manifest):
    before = json.loads((folder / "manifest.json").read_text())["outputs"]["a/a_t2_synth.nii.gz"]
    (folder / "manifest.json").unlink()
    if manifest is not None:
        (folder / "manifest.json").write_text(manifest)
    modified = earlier.stat().st_mtime_ns
    standing, outputs = again(folder, record, weights, skip_existing=True)
    assert (standing, outputs.fates["skipped"]) == ("done", [("a", "t2")])
    assert earlier.stat().st_mtime_ns == modified
    now = json.loads((folder / "manifest.json").read_text())["outputs"]["a/a_t2_synth.nii.gz"]
    assert {key: now[key] for key in now if key != "finished"} == {key: before[key] for key in now if key != "finished"}


def test_an_output_never_replaces_a_scan_whatever_was_asked(folder, record, earlier):
    for contrast, options in (("t1", {"overwrite": True}), ("flair", {"skip_existing": True})):
        other = {"patient": "b", "session": "", "layout": "datalist", "target": "t2", contrast: str(earlier)}
        outputs = OutputFolder(folder, **options)
        outputs.open([record, other])
        with pytest.raises(SubjectError, match=r"^E_SOURCE a/a_t2_synth\.nii\.gz is one of the scans"):
            outputs.claim(record)
    assert earlier.read_text() == "a volume"


def test_nor_does_it_take_the_sidecar_of_a_scan(tmp_path):
    write_whole(tmp_path / "t.nii", "a scan")
    write_whole(tmp_path / "t.json", '{"EchoTime": 0.1}')
    record = {
        "patient": "t",
        "session": "",
        "layout": "loose",
        "output": "t.nii.gz",
        "target": "t2",
        "t1": str(tmp_path / "t.nii"),
    }
    outputs = OutputFolder(tmp_path, overwrite=True)
    outputs.open([record])
    with pytest.raises(SubjectError, match=r"^E_SOURCE t\.nii\.gz is one of the scans, or has its name"):
        outputs.claim(record)


def test_nor_that_of_another_output(tmp_path):
    write_whole(tmp_path / "t.nii", "a volume")
    write_whole(tmp_path / "t.json", json.dumps({"GeneratedBy": bids.GENERATOR}))
    record = {"patient": "t", "session": "", "layout": "loose", "output": "t.nii.gz", "target": "t2"}
    with pytest.raises(FileExistsError, match=r"exist already, e\.g\. .*t\.json"):
        OutputFolder(tmp_path).open([record])


@pytest.mark.parametrize("output", ["manifest.nii.gz", "Errors.nii"])
def test_no_output_has_a_sidecar_of_the_name_of_the_ledger(tmp_path, output):
    record = {"patient": "t", "session": "", "layout": "loose", "output": output, "target": "t2"}
    with pytest.raises(SubjectError, match=r"^E_NAME .*its sidecar would be (manifest|Errors)\.json"):
        OutputFolder(tmp_path).claim(record)


@pytest.mark.parametrize(
    ("name", "content"), [("a_t2_synth.json", '{"EchoTime": 0.1}'), ("a_t2_synth.json", "["), ("a_t2_synth.png", "")]
)
def test_a_file_of_others_beside_an_output_is_in_the_way(folder, record, name, content):
    write_whole(folder / "a" / name, content)
    with pytest.raises(FileExistsError, match=rf"^1 output\(s\) exist already, e\.g\. .*{name}"):
        OutputFolder(folder).open([record])
    outputs = OutputFolder(folder, skip_existing=True)
    outputs.open([record])
    with pytest.raises(SubjectError, match=rf"^E_EXISTS a/{name} exists, and nothing says whose it is"):
        outputs.claim(record)
    outputs = OutputFolder(folder, overwrite=True)
    outputs.open([record])
    assert outputs.claim(record) == "free"
    assert (folder / "a" / name).read_text() == content


def test_a_sidecar_of_a_killed_run_is_not_in_the_way(folder, record):
    write_whole(folder / "a" / "a_t2_synth.json", json.dumps({"GeneratedBy": bids.GENERATOR}))
    write_whole(folder / "a" / "a_t2_synth.png", "")
    outputs = OutputFolder(folder)
    outputs.open([record])
    assert outputs.claim(record) == "free"


def test_outputs_of_a_raw_bids_dataset_go_elsewhere(tmp_path):
    scan = tmp_path / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_T1w.nii.gz"
    record = {"patient": "01", "session": "1", "layout": "bids", "target": "t2", "t1": str(scan)}
    with pytest.raises(ValueError, match=r"is the BIDS dataset itself; choose another, e\.g\. .*derivatives/hmf$"):
        OutputFolder(tmp_path).open([record])
    OutputFolder(tmp_path / "derivatives" / "hmf").open([record])


@pytest.mark.usefixtures("earlier")
def test_a_clock_that_was_ahead_does_not_stop_overwriting(folder, record, weights):
    content = json.loads((folder / "manifest.json").read_text())
    content["outputs"]["a/a_t2_synth.nii.gz"]["finished"] += 3600.0
    (folder / "manifest.json").write_text(json.dumps(content))
    assert again(folder, record, weights, overwrite=True)[0] == "free"


def test_a_run_that_comes_to_nothing_leaves_no_folder_that_it_made(tmp_path, record):
    (tmp_path / "there").mkdir()
    for name in ("new/and/deep", "there"):
        outputs = OutputFolder(tmp_path / name)
        outputs.open([record])
        assert outputs.claim(record) == "free"
        outputs.release_all()
        outputs.abandon()
    assert not (tmp_path / "new").exists()
    assert files_in(tmp_path / "there") == []


@pytest.mark.parametrize("sidecar", [None, "{}", '{"Sha256": "0"}', "[]", "{"])
def test_with_skip_existing_an_output_that_nobody_speaks_of_is_never_replaced(folder, record, earlier, sidecar):
    (folder / "manifest.json").unlink()
    beside(earlier, ".json").unlink()
    if sidecar is not None:
        beside(earlier, ".json").write_text(sidecar)
    outputs = OutputFolder(folder, skip_existing=True)
    outputs.open([record])
    with pytest.raises(SubjectError, match=r"^E_EXISTS a/a_t2_synth\.nii\.gz exists, and neither manifest"):
        outputs.claim(record)
    assert earlier.read_text() == "a volume"
    assert claim(earlier, folder) is not None  # and it is not claimed any more


@pytest.mark.parametrize("patient", ["../../x", "a/b", "", ".hidden", "a\nb", "Manifest.json"])
def test_a_subject_without_a_file_name_is_named_and_nothing_is_made(folder, patient, tmp_path):
    record = {"patient": patient, "session": "", "layout": "brats", "target": "t2"}
    outputs = OutputFolder(folder)
    outputs.open([record])
    before = files_in(tmp_path)
    with pytest.raises(SubjectError, match=r"^E_NAME .*is no file name"):
        outputs.claim(record)
    assert files_in(tmp_path) == before
    outputs.failed(record, SubjectError("E_NAME", "x"))
    assert outputs.fates["failed"] == [(repr(patient), "t2")]


def test_a_name_that_leaves_no_room_for_its_part_file_is_named(folder):
    record = {"patient": "x" * 210, "session": "", "layout": "brats", "target": "t2"}
    with pytest.raises(SubjectError, match=r"^E_NAME x+_t2_synth.nii.gz is too long for a file name"):
        OutputFolder(folder).claim(record)


def test_no_link_leads_out_of_the_output_folder(folder, record, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    folder.mkdir()
    (folder / "a").symlink_to(tmp_path / "elsewhere")
    outputs = OutputFolder(folder)
    outputs.open([record])
    with pytest.raises(SubjectError, match=r"^E_NAME a is a link that leads out of the output folder"):
        outputs.claim(record)
    assert files_in(tmp_path / "elsewhere") == []


def test_an_output_folder_may_itself_be_a_link(folder, record, tmp_path):
    (tmp_path / "big disk").mkdir()
    folder.symlink_to(tmp_path / "big disk")
    outputs = OutputFolder(folder)
    outputs.open([record])
    assert outputs.claim(record) == "free"


def test_overwrite_and_skip_existing_contradict_each_other(folder):
    with pytest.raises(ValueError, match="contradict each other: choose one"):
        OutputFolder(folder, overwrite=True, skip_existing=True)
    with pytest.raises(ValueError, match="overwrite is 'false'; write True or False"):
        OutputFolder(folder, overwrite="false")


def test_a_folder_that_cannot_be_written_to_is_one_clear_error(folder, record, monkeypatch):
    folder.write_text("a file where a folder should be")
    said = rf"^output_dir {folder}(/below)? cannot be written to \(.+\); choose another folder$"
    for place in (folder, folder / "below"):
        with pytest.raises(PermissionError, match=said):
            OutputFolder(place).open([record])
    folder.unlink()

    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(PermissionError, match=rf"^output_dir {folder} .*\(Read-only file system\)"):
        OutputFolder(folder).open([record])
    assert files_in(folder) == []


@pytest.mark.usefixtures("earlier")
def test_the_run_is_closed_with_the_number_of_each_fate(folder, record, weights):
    outputs = OutputFolder(folder, weights_path=str(weights), skip_existing=True, settings={"a": 1})
    outputs.open([record])
    outputs.close({"seed": 3}, {"made": [("x", "t2"), ("y", "t2")], "failed": []})
    run = json.loads((folder / "manifest.json").read_text())["run"]
    assert {key: run[key] for key in ("seed", "made", "failed", "targets", "settings")} == {
        "seed": 3,
        "made": 2,
        "failed": 0,
        "targets": ["t2"],
        "settings": {"a": 1},
    }
    assert run["weights_sha256"] == file_hash(weights)


def test_everything_claimed_can_be_given_back_at_once(folder):
    records = [{"patient": name, "session": "", "layout": "brats", "target": "t2"} for name in "abc"]
    outputs = OutputFolder(folder)
    assert {outputs.claim(record) for record in records} == {"free"}
    outputs.release_all()
    assert files_in(folder) == []


def test_a_report_says_what_was_done_and_ends_with_an_error_only_when_something_was_not(tmp_path, caplog):
    fates = {"made": [("a", "t2"), ("b", "t2")], "skipped": [("c", "t2")], "elsewhere": [("d", "t2")]}
    fates["failed"] = []
    with caplog.at_level("INFO"):
        report(fates, tmp_path)
    assert caplog.messages == [
        f"2 synthesised in {tmp_path}; 1 left as they are, checked by hash; 1 made by another run meanwhile"
    ]
    of_two = [("p", "t1"), ("p", "t2"), ("q", "t2")]
    with pytest.raises(
        SubjectsFailed, match=r"^3 volume\(s\) of 2 subject\(s\) could not be made \(p, q\), 2 could: see"
    ):
        report(fates | {"failed": of_two}, tmp_path)
    of_four = [*of_two, ("r", "t2"), ("s", "t2")]
    with pytest.raises(SubjectsFailed, match=r"^5 volume\(s\) of 4 .* \(p, q, r, \.\.\.\), 2 could"):
        report(fates | {"failed": of_four}, tmp_path)


# What became of a subject that could not be done

HOME = str(Path.home())
FAILURES = {
    "a file": (VolumeError("E_TRUNCATED", f"{HOME}/in/a_t1.nii.gz", "it ends"), "E_TRUNCATED"),
    "a link": (
        VolumeError("E_MISSING", f"{HOME}/in/a.nii", f"a link to {HOME}/annex/x, which is not there"),
        "E_MISSING",
    ),
    "twice": (
        VolumeError("E_AMBIGUOUS", "subject a", f"it has t1 twice: {HOME}/in/a_t1.nii and {HOME}/b_t1.nii"),
        "E_AMBIGUOUS",
    ),
    "a name": (SubjectError("E_NAME", "subject '..' is no file name"), "E_NAME"),
    "writing": (OSError(errno.EACCES, "Permission denied", f"{HOME}/out/a"), "E_WRITE"),
    "no errno": (OSError(f"cannot write {HOME}/out/a"), "E_WRITE"),
    "memory": (MemoryError(), "E_MEMORY"),
    "a bug": (KeyError(f"{HOME}/in"), "E_FAILED"),
    "many lines": (RuntimeError("first\nsecond"), "E_FAILED"),
    "no text": (ValueError(), "E_FAILED"),
}


@pytest.mark.parametrize(("error", "code"), FAILURES.values(), ids=FAILURES)
def test_an_error_becomes_an_entry_with_code_cause_and_cure_and_without_the_home(error, code):
    entry = failure({"patient": "a", "session": "1", "target": "t2"}, error)
    assert (entry["subject"], entry["target"], entry["code"]) == ("a_1", "t2", code)
    assert set(entry) - {"file"} == {"subject", "target", "code", "cause", "cure"}
    assert all(value and "\n" not in value for value in entry.values())
    assert entry["cure"] == SUBJECT_ERRORS[code].cure
    assert HOME not in json.dumps(entry)


def test_a_subject_error_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(SubjectError("E_EXISTS", "x exists")))
    assert (str(error), error.code, error.cure) == (
        str(SubjectError("E_EXISTS", "x exists")),
        "E_EXISTS",
        SUBJECT_ERRORS["E_EXISTS"].cure,
    )


def test_a_failure_is_written_down_logged_in_one_line_and_its_claim_released(folder, record, caplog):
    outputs = OutputFolder(folder)
    outputs.open([record])
    outputs.claim(record)
    outputs.failed(record, VolumeError("E_CORRUPT", record["t1"], "its checksum differs"))
    (entry,) = json.loads((folder / "errors.json").read_text())
    assert entry == {
        "subject": "a",
        "code": "E_CORRUPT",
        "file": "t1.nii.gz",
        "cause": "its checksum differs",
        "cure": SUBJECT_ERRORS["E_CORRUPT"].cure,
        "target": "t2",
    }
    assert caplog.messages == [f"a left out: E_CORRUPT t1.nii.gz: its checksum differs; {entry['cure']}"]
    assert files_in(folder) == ["errors.json", "manifest.json"]


def test_what_is_wrong_with_a_scan_is_written_down_for_each_output_and_said_once(folder, record, caplog):
    outputs = OutputFolder(folder)
    tasks = [record | {"target": target} for target in ("t2", "pd")]
    outputs.open(tasks)
    for task in tasks:
        outputs.failed(task, VolumeError("E_CORRUPT", record["t1"], "its checksum differs"))
    entries = json.loads((folder / "errors.json").read_text())
    assert [(entry["subject"], entry["target"]) for entry in entries] == [("a", "pd"), ("a", "t2")]
    assert len(caplog.messages) == 1


def test_a_failure_on_a_full_disk_is_counted_though_it_cannot_be_written(folder, record, monkeypatch):
    outputs = OutputFolder(folder)
    outputs.open([record])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hmf_networks.outputs.manifest.write_whole", full)
    outputs.failed(record, OSError(errno.ENOSPC, "No space left on device"))
    assert outputs.fates["failed"] == [("a", "t2")]
