"""What docs/reliability.md claims of whole runs: killed, interrupted, without room, side by side, twice.

    python benchmarks/reliability.py [STUDY ...] [--seed 0]

Studies: torture orientations killed several folder together room memory names twice interrupted bids. Each
simulates its subjects, takes a small network without training, starts the command as a user would, and
prints what it counts. Ends with 1 when a claim does not hold.
"""

import argparse
import gzip
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from hmf_networks.data.phantom import simulate_subjects
from hmf_networks.nifti.write import GEOMETRY
from runs import (
    ENVIRONMENT,
    RANGE,
    ROOT,
    begun,
    broken,
    command,
    full_disk,
    hashes,
    largest_difference,
    last,
    litter,
    run,
    said,
    small_weights,
    volumes,
)

failures: list[str] = []


def claim(text: str, *, holds: bool) -> None:
    print(f"  {'ok  ' if holds else 'MISS'} {text}", flush=True)
    if not holds:
        failures.append(text)


def study_killed(work: Path, seed: int) -> None:
    """Kill -9 at 20 moments of writing."""
    weights = small_weights(work)
    simulate_subjects(work / "in", num_subjects=20, seed=seed, spacing_mm=4.0)
    run(command(work / "in", work / "whole", weights))
    expected = hashes(work / "whole")
    draw = random.Random(seed)
    num_broken = num_litter = num_wrong = num_cut = 0
    for number in range(20):
        output = work / f"killed-{number}"
        process = begun(command(work / "in", output, weights), output, "*/.*.part")
        time.sleep(draw.uniform(0, 1.5))
        process.kill()
        process.communicate()
        num_cut += len(volumes(output)) < len(expected)
        num_broken += len(broken(output))
        done = run(command(work / "in", output, weights, "--skip-existing"))
        num_litter += len(litter(output))
        num_wrong += done.returncode != 0 or hashes(output) != expected
    claim(f"{num_cut} of 20 runs killed before their end", holds=num_cut > 10)
    claim(f"{num_broken} broken outputs", holds=num_broken == 0)
    claim(f"{num_litter} files of litter after the next run", holds=num_litter == 0)
    claim(f"{num_wrong} of 20 next runs that did not end with the same 20 volumes", holds=num_wrong == 0)


def study_several(work: Path, seed: int) -> None:
    """Several outputs of each subject: killed, side by side, a bad scan."""
    weights = small_weights(work, any_to_any=True)
    simulate_subjects(work / "in", num_subjects=8, seed=seed, spacing_mm=4.0)
    for number, path in enumerate(sorted((work / "in").rglob("*-t[12]?.nii.gz"))):
        if number % 3:  # of t1c, t1n, t2f, t2w some here, some there
            path.unlink()
    run(command(work / "in", work / "whole", weights, target=None))
    expected = hashes(work / "whole")
    draw = random.Random(seed)
    num_cut = num_bad = 0
    for number in range(10):
        output = work / f"killed-{number}"
        process = begun(command(work / "in", output, weights, target=None), output, "*/.*.part")
        time.sleep(draw.uniform(0, 1.0))
        process.kill()
        process.communicate()
        num_cut += len(volumes(output)) < len(expected)
        num_bad += len(broken(output))
        done = run(command(work / "in", output, weights, "--skip-existing", target=None))
        num_bad += len(litter(output)) + (done.returncode != 0 or hashes(output) != expected)
    claim(f"{num_cut} of 10 runs killed before the end of {len(expected)} volumes", holds=num_cut > 5)
    claim(f"{num_bad} broken outputs, litter, or ends that differ", holds=num_bad == 0)
    words = command(work / "in", work / "shared", weights, "--skip-existing", target=None)
    processes = [
        subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(2)
    ]
    made = [int(process.communicate()[0].strip().splitlines()[-1].split()[0]) for process in processes]
    claim(f"two runs at once made {made[0]} + {made[1]}", holds=sum(made) == len(expected))
    claim("the same volumes as one run", holds=hashes(work / "shared") == expected)
    bad = next((work / "in").rglob("*-t*.nii.gz"))
    bad.write_bytes(bad.read_bytes()[:-300])
    done = run(command(work / "in", work / "bad", weights, target=None))
    errors = json.loads((work / "bad" / "errors.json").read_text())
    missing = len(expected) - len(volumes(work / "bad"))
    claim(
        f"one bad scan: {missing} volumes of {len({entry['subject'] for entry in errors})} subject not made",
        holds=done.returncode == 2 and missing == len(errors) > 1,
    )


def study_folder(work: Path, seed: int) -> None:
    """A folder of 20 with 3 bad, then again with --skip-existing."""
    weights = small_weights(work)
    simulate_subjects(work / "in", num_subjects=20, seed=seed, spacing_mm=4.0)
    subjects = sorted(path for path in (work / "in").iterdir() if path.is_dir())
    cut, missing, flipped = (next(subjects[n].glob(f"*{end}")) for n, end in ((3, "t1n*"), (8, "t2f*"), (15, "t1n*")))
    cut.write_bytes(cut.read_bytes()[:-500])
    missing.unlink()
    content = bytearray(flipped.read_bytes())
    content[-6] ^= 1  # in the checksum
    flipped.write_bytes(content)
    done = run(command(work / "in", work / "out", weights))
    errors = json.loads((work / "out" / "errors.json").read_text())
    claim(f"{len(volumes(work / 'out'))} of 17 done", holds=len(volumes(work / "out")) == 17)
    codes = [entry["code"] for entry in errors]
    claim(f"named: {', '.join(codes)}", holds=codes == ["E_TRUNCATED", "E_MISSING", "E_CORRUPT"])
    claim(f"exit {done.returncode}", holds=done.returncode == 2)
    claim("no traceback", holds="Traceback" not in done.stderr)
    before = {path: path.stat().st_mtime_ns for path in volumes(work / "out")}
    again = run(command(work / "in", work / "out", weights, "--skip-existing"))
    after = {path: path.stat().st_mtime_ns for path in volumes(work / "out")}
    claim("again with --skip-existing: nothing written", holds=before == after)
    claim(f"and it says so: {again.stdout.strip().splitlines()[-1]}", holds="17 left as they are" in again.stdout)
    volumes(work / "out")[0].write_bytes(b"damaged")
    repaired = run(command(work / "in", work / "out", weights, "--skip-existing"))
    claim("a damaged output is made again", holds="made again" in repaired.stdout and not broken(work / "out"))
    refused = run(command(work / "in", work / "out", weights))
    claim(f"without a flag: exit {refused.returncode}", holds=refused.returncode == 1)
    (work / "empty").mkdir()
    empty = run(command(work / "empty", work / "out2", weights))
    claim(f"an empty folder: exit {empty.returncode}", holds=empty.returncode == 1 and "looked for" in empty.stderr)


def study_together(work: Path, seed: int) -> None:
    """Two runs on one output folder, and two processes under torchrun."""
    weights = small_weights(work)
    simulate_subjects(work / "in", num_subjects=12, seed=seed, spacing_mm=4.0)
    run(command(work / "in", work / "whole", weights))
    words = command(work / "in", work / "out", weights, "--skip-existing")
    processes = [
        subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(2)
    ]
    texts = [process.communicate()[0] for process in processes]
    made = [int(text.strip().splitlines()[-1].split()[0]) for text in texts]
    claim(f"two runs at once made {made[0]} + {made[1]} of 12", holds=sum(made) == 12)
    claim("the same volumes as one run", holds=hashes(work / "out") == hashes(work / "whole"))
    claim(f"{len(litter(work / 'out'))} files of litter", holds=not litter(work / "out"))
    bad = next((work / "in").glob("*5-000/*t1n*"))
    bad.write_bytes(bad.read_bytes()[:-900])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = run([*torchrun, *command(work / "in", work / "ranks", weights)[1:]])
    run_about = json.loads((work / "ranks" / "manifest.json").read_text())["run"]
    counts = (run_about["processes"], run_about["made"], run_about["failed"])
    claim(f"torchrun: {counts[0]} processes, {counts[1]} made, {counts[2]} failed", holds=counts == (2, 11, 1))
    claim("one errors.json", holds=len(json.loads((work / "ranks" / "errors.json").read_text())) == 1)
    claim(f"torchrun's exit {done.returncode}", holds=done.returncode != 0)
    worst = largest_difference(work / "ranks", work / "whole")
    claim(f"one process or two: {worst:.1e} of the range apart", holds=worst < 1e-5)


def study_memory(work: Path, seed: int) -> None:
    """Less address space than a batch of 8 needs (RLIMIT_AS)."""
    weights = small_weights(work, pixel_mm=1.0, plane_size=(256, 256), width=32)
    simulate_subjects(work / "in", num_subjects=1, seed=seed, spacing_mm=4.0)
    exact = ("--precision", "fp32", "--batch-size", "8")
    run(command(work / "in", work / "whole", weights, *exact))
    for limit in (4_000_000_000, 2_000_000_000):

        def little_memory(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

        output = work / f"out-{limit}"
        done = run(command(work / "in", output, weights, *exact), preexec_fn=little_memory)
        warnings = [line for line in done.stdout.splitlines() if "memory" in line]
        claim(f"{limit / 1e9:.0f} GB: exit {done.returncode}, {warnings}", holds=len(warnings) == 1)
        worst = largest_difference(output, work / "whole") if volumes(output) else np.inf
        claim(f"{worst:.1e} of the range apart", holds=worst < 1e-5)


def study_torture(work: Path, seed: int) -> None:
    """Every file of the torture set as the scan of a subject, in one run."""
    sys.path.insert(0, str(ROOT / "tests"))
    from torture.case import simulated_head, write_files
    from torture.ours import CASES as OURS
    from torture.stranger import CASES as STRANGER

    weights = small_weights(work, sources=["t1"])
    entries = []
    for number, case in enumerate([*STRANGER, *OURS]):
        path = write_files(case, simulated_head(seed), work / "in" / f"{number:03d}")
        entries.append({"patient": f"{number:03d}", "t1": str(path)})
    (work / "list.json").write_text(json.dumps({"testing": entries}))
    start = time.perf_counter()
    done = run(command(work / "list.json", work / "out", weights, "--no-preview"))
    seconds = time.perf_counter() - start
    errors = {entry["subject"]: entry["code"] for entry in json.loads((work / "out" / "errors.json").read_text())}
    wrong = [
        f"{case.name} {errors.get(f'{number:03d}', 'used')}"
        for number, case in enumerate([*STRANGER, *OURS])
        if (f"{number:03d}" in errors) != (case.verdict == "reject")
        or (case.verdict == "reject" and errors[f"{number:03d}"] not in case.codes)
    ]
    made = json.loads((work / "out" / "manifest.json").read_text())["outputs"]
    slowest = max(entry["seconds"] for entry in made.values())
    claim(f"{len(entries)} subjects in {seconds:.0f} s, exit {done.returncode}", holds=done.returncode == 2)
    claim(f"{len(wrong)} treated wrongly {wrong[:5]}", holds=not wrong)
    claim(f"{len(made)} volumes made, {len(broken(work / 'out'))} broken", holds=not broken(work / "out"))
    claim(f"slowest {slowest:.1f} s, no traceback", holds=slowest < 10 and "Traceback" not in done.stderr)


def study_room(work: Path, seed: int) -> None:
    """No room on the disk, a folder that cannot be written to."""
    weights = small_weights(work)
    simulate_subjects(work / "in", num_subjects=3, seed=seed, spacing_mm=4.0)

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))

    done = run(command(work / "in", work / "out", weights), preexec_fn=little_room)
    claim(f"RLIMIT_FSIZE: exit {done.returncode}, {last(done)}", holds=done.returncode == 1)
    claim("one line, no traceback", holds=len(said(done)) == 1)
    known = ("manifest.json", "errors.json")
    left = [path for path in (work / "out").rglob("*") if path.is_file() and path.name not in known]
    claim(f"{len(left)} partial files", holds=not left)
    with full_disk(work / "disk") as disk:
        if disk is None:
            print("  --   tmpfs cannot be mounted here: a full disk was not tried")
        else:
            done = run(command(work / "in", disk / "out", weights))
            claim(f"full disk: exit {done.returncode}, {last(done)}", holds=done.returncode == 1)
            claim("one line, no traceback", holds=len(said(done)) == 1)
            claim(f"{len(broken(disk))} broken files", holds=not broken(disk))
            claim(f"{len(litter(disk))} files of litter", holds=not litter(disk))
    (work / "closed").write_text("a file where a folder should be")
    done = run(command(work / "in", work / "closed" / "out", weights))
    claim(f"output folder cannot be made: exit {done.returncode}, {last(done)}", holds=done.returncode == 1)
    claim("one line, no traceback", holds=len(said(done)) == 1)
    if os.geteuid() == 0:
        with full_disk(work / "read_only", options="size=1m,ro") as disk:
            if disk is not None:
                done = run(command(work / "in", disk / "out", weights))
                claim(f"read-only: exit {done.returncode}, {last(done)}", holds=done.returncode == 1)
                claim("one line, no traceback", holds=len(said(done)) == 1)


HOSTILE = (
    *("a b", "a'b", 'a"b', "$(touch pwned)", "`touch pwned`", "-rf", "--help", "a;b", "a&b", "a|b", "a*b", "a[b]"),
    *("<img src=x onerror=alert(1)>", "{x}", "%s%n", "@sources", "$import os", "a#b", "Ünï-çødé", "脑", "a\nb", "a\\b"),
    *("..", "...", "~", "a..b", "con", "a" * 120),
)


def study_names(work: Path, seed: int) -> None:
    """Hostile names of subjects, and patients' names planted in headers."""
    weights = small_weights(work)
    simulate_subjects(work / "sim", num_subjects=1, seed=seed, spacing_mm=4.0)
    t1, flair = (next((work / "sim").rglob(f"*{end}.nii.gz")) for end in ("t1n", "t2f"))
    source = work / "cage" / "in"
    source.mkdir(parents=True)
    num_written = 0
    for name in HOSTILE:
        try:
            shutil.copy(t1, source / f"{name}_t1.nii.gz")
            shutil.copy(flair, source / f"{name}_flair.nii.gz")
            num_written += 1
        except OSError:
            continue
    before = {path for path in work.rglob("*") if "cage/out" not in str(path)}
    done = run(command(source, work / "cage" / "out", weights), cwd=work / "cage")
    outside = {path for path in work.rglob("*") if "cage/out" not in str(path)} - before
    claim(f"{num_written} hostile names: {len(outside)} files outside the output folder", holds=not outside)
    errors = work / "cage" / "out" / "errors.json"
    named = len(json.loads(errors.read_text())) if errors.exists() else 0
    num_done = len(volumes(work / "cage" / "out"))
    claim(f"{num_done} done, {named} named, exit {done.returncode}", holds=num_done + named >= num_written - 3)
    claim("no traceback", holds="Traceback" not in done.stderr)
    datalist = {"testing": [{"patient": "../../x", "t1": str(t1), "flair": str(flair)}]}
    (work / "list.json").write_text(json.dumps(datalist))
    done = run(command(work / "list.json", work / "cage" / "out3", weights))
    codes = [entry["code"] for entry in json.loads((work / "cage" / "out3" / "errors.json").read_text())]
    claim(
        f"patient ../../x of a datalist: exit {done.returncode}, {codes}",
        holds=(done.returncode, codes) == (2, ["E_NAME"]),
    )
    (work / "elsewhere").mkdir()
    (work / "linked").mkdir()
    (work / "linked" / "a b").symlink_to(work / "elsewhere")
    run(command(source, work / "linked", weights), cwd=work / "cage")
    num_led_out = len(list((work / "elsewhere").iterdir()))
    claim(f"{num_led_out} files through a link that leads out", holds=num_led_out == 0)
    plant_names(t1, work / "planted" / "p_t1.nii.gz")
    plant_names(flair, work / "planted" / "p_flair.nii.gz")
    run(command(work / "planted", work / "clean", weights))
    hits = [path for path in (work / "clean").rglob("*") if path.is_file() and holds_name(path)]
    num_files = sum(1 for path in (work / "clean").rglob("*") if path.is_file())
    claim(
        f"names in headers, extensions and gzip: in {len(hits)} of {num_files} files written",
        holds=not hits and len(volumes(work / "clean")) == 1,
    )


def plant_names(path: Path, planted: Path) -> None:
    image = nibabel.load(path)
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = b"Doe^Jane"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Doe^Jane"))
    planted.parent.mkdir(exist_ok=True)
    with planted.open("wb") as file, gzip.GzipFile("Doe^Jane.nii", "wb", fileobj=file, mtime=1) as packed:
        packed.write(image.to_bytes())


def holds_name(path: Path) -> bool:
    content = path.read_bytes()
    if path.suffix == ".gz":
        is_stamped = content[3] != 0 or content[4:8] != bytes(4)  # a name, or a time
        return is_stamped or b"Doe" in content or b"Doe" in gzip.decompress(content)
    return b"Doe" in content or b"Jane" in content or str(Path.home()).encode() in content


def study_twice(work: Path, seed: int) -> None:
    """The same command twice, batch 1 and 8, and plain MONAI."""
    weights = small_weights(work)
    simulate_subjects(work / "in", num_subjects=3, seed=seed, spacing_mm=4.0)
    run(command(work / "in", work / "one", weights))
    run(command(work / "in", work / "two", weights))
    claim("the same command twice: the same bytes", holds=hashes(work / "one") == hashes(work / "two"))
    exact = ("--precision", "fp32", "--batch-size")
    run(command(work / "in", work / "b1", weights, *exact, "1"))
    run(command(work / "in", work / "b8", weights, *exact, "8"))
    worst = largest_difference(work / "b1", work / "b8")
    claim(f"batch 1 and 8 in fp32: {worst:.1e} of the range apart", holds=worst < 1e-5)
    config = {
        f"network_def#{key}": value for key, value in json.loads((work / "model.json").read_text())["network"].items()
    }
    config |= {"sources": ["t1", "flair"], "targets": ["t2"], "any_subset": False, "foreground_box": False}
    (work / "network.json").write_text(json.dumps(config))
    plain = [sys.executable, "-m", "monai.bundle", "run", "inference", "--bundle_root", str(ROOT / "bundle")]
    files = [str(ROOT / "bundle" / "configs" / "inference.json"), str(work / "network.json")]
    plain += ["--config_file", str(files), "--dataset_dir", str(work / "in"), "--output_dir", str(work / "plain")]
    plain += ["--ckpt_path", str(weights), "--pixel_mm", "4.0", "--plane_size", "[48, 64]"]
    done = run(plain)
    claim(f"plain monai.bundle: exit {done.returncode}", holds=done.returncode == 0)
    claim("the same bytes as hmf synthesize", holds=hashes(work / "plain") == hashes(work / "one") != {})
    first = next((work / "in").rglob("*t1n.nii.gz"))
    first.write_bytes(first.read_bytes()[:-100])
    done = run([word.replace("/plain", "/plain2") for word in plain])
    claim(f"plain monai.bundle, one bad subject: exit {done.returncode}", holds=done.returncode == 2)
    claim(f"{len(volumes(work / 'plain2'))} of 2 done", holds=len(volumes(work / "plain2")) == 2)


def study_interrupted(work: Path, seed: int) -> None:
    """SIGTERM and SIGINT."""
    weights = small_weights(work)
    simulate_subjects(work / "in", num_subjects=12, seed=seed, spacing_mm=4.0)
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        output = work / number.name
        process = begun(command(work / "in", output, weights), output, "*/*.nii.gz")
        start = time.perf_counter()
        process.send_signal(number)
        error = process.communicate()[1].decode()
        seconds = time.perf_counter() - start
        num_done = len(volumes(output))
        claim(
            f"{number.name}: exit {process.returncode} after {seconds:.1f} s with {num_done} of 12 done",
            holds=process.returncode == code and "Traceback" not in error,
        )
        claim("nothing broken, no litter", holds=not broken(output) and not litter(output))
        again = run(command(work / "in", output, weights, "--skip-existing"))
        claim("the next run completes it", holds=again.returncode == 0 and len(volumes(output)) == 12)


def study_orientations(work: Path, seed: int) -> None:
    """48 orientations of one volume through the whole path, with a network that changes nothing."""
    import torch

    simulate_subjects(work / "sim", num_subjects=1, seed=seed, spacing_mm=4.0)
    image = nibabel.load(next((work / "sim").rglob("*t1n.nii.gz")))
    values, affine = np.asarray(image.dataobj), image.affine
    (work / "in").mkdir()
    orientations = [
        np.array(list(zip(axes, flips, strict=True)))
        for axes in itertools.permutations(range(3))
        for flips in itertools.product((1, -1), repeat=3)
    ]
    for number, orientation in enumerate(orientations):
        turned = nibabel.apply_orientation(values, orientation)
        place = affine @ nibabel.orientations.inv_ornt_aff(orientation, values.shape)
        written = nibabel.Nifti1Image(turned, place)
        written.header.set_xyzt_units("mm", "sec")
        written.set_qform(place, 1)
        written.set_sform(place, 2)
        written.to_filename(work / "in" / f"o{number:02d}_t1.nii.gz")
    torch.save({}, work / "identity.pt")
    identity = {"network_def": {"_target_": "torch.nn.Identity"}, "decode": "resample", "pixel_mm": 4.0}
    identity |= {"sources": ["t1"], "targets": ["t2"], "any_subset": False, "foreground_box": False}
    identity |= {"plane_size": [16, 16], "precision": "fp32"}
    (work / "identity.json").write_text(json.dumps(identity))
    done = run(command(work / "in", work / "out", work / "identity.pt", "--config", str(work / "identity.json")))
    claim(f"{len(volumes(work / 'out'))} of 48 done, exit {done.returncode}", holds=len(volumes(work / "out")) == 48)
    first, worst, num_changed = None, 0.0, 0
    for path in volumes(work / "out"):
        source = work / "in" / path.name.replace("_t2_synth", "_t1")
        written, given = nibabel.load(path), nibabel.load(source)
        fields = GEOMETRY if written.shape == given.shape else ()
        num_changed += (
            any(written.header[name].tobytes() != given.header[name].tobytes() for name in fields) or not fields
        )
        upright = nibabel.as_closest_canonical(written)
        first = upright.get_fdata() if first is None else first
        worst = max(worst, float(np.abs(upright.get_fdata() - first).max()) / RANGE)
    claim(f"largest difference in world space {worst:.1e} of the range", holds=worst < 1e-4)
    claim(f"header fields changed in {num_changed} of 48 files", holds=num_changed == 0)
    upright = nibabel.as_closest_canonical(image)
    expected = expected_identity(np.asarray(upright.dataobj))
    error = float(np.abs(first - expected).max()) / RANGE
    claim(f"and {error:.1e} from the source, scaled", holds=error < 1e-4)


def expected_identity(values: np.ndarray) -> np.ndarray:
    """What the path makes of a source when its network changes nothing."""
    import torch
    from hmf_networks.ops.foreground import background_value
    from hmf_networks.transforms.intensity import scale_by_foreground

    volume = torch.from_numpy(values.astype(np.float32))
    scaled = (scale_by_foreground(volume) + 1) / 2 * RANGE
    return torch.where(volume == background_value(volume), 0.0, scaled).numpy()


def study_bids(work: Path, seed: int) -> None:
    """BIDS in, BIDS derivatives out, judged by bids-validator-deno."""
    weights = small_weights(work)
    simulate_subjects(work / "in", num_subjects=2, seed=seed, spacing_mm=4.0, layout="bids")
    done = run(command(work / "in", work / "out", weights))
    num_done = len(list((work / "out").rglob("*desc-synth*.nii.gz")))
    claim(f"{num_done} of 2 done", holds=done.returncode == 0 and num_done == 2)
    validator = shutil.which("bids-validator-deno", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if validator is None:
        print("  --   bids-validator-deno is not installed")
        return
    judged = run([validator, "--json", str(work / "out")])
    issues = json.loads(judged.stdout)["issues"]["issues"]
    errors = [issue["code"] for issue in issues if issue["severity"] == "error"]
    warnings = sorted({issue["code"] for issue in issues if issue["severity"] == "warning"})
    claim(f"bids-validator-deno: {len(errors)} errors {errors}, warnings {warnings}", holds=not errors)


STUDIES: dict[str, Callable[[Path, int], None]] = {
    name.removeprefix("study_"): function for name, function in globals().copy().items() if name.startswith("study_")
}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("studies", nargs="*", default=list(STUDIES), metavar="STUDY")
    options.add_argument("--seed", type=int, default=0)
    options = options.parse_args()
    for name in options.studies:
        study = STUDIES[name]
        print(f"{name}: {study.__doc__}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            study(Path(folder), options.seed)
    print(f"{len(failures)} claims missed" if failures else "all claims hold")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
