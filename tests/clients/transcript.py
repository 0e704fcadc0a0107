"""Every command of README and the tutorial as a newcomer pastes it, in a fresh clone: docs/transcript.md.

    python tests/clients/transcript.py [--output FILE]      (`make transcript`; half an hour on two cores)

What is there is HEAD, not the working tree. `/data` is a folder of simulated scans, laid out as the document says;
trainings are cut short by SHORT, which the transcript shows. Of long outputs the last lines stay. Ends with 1, and
writes nothing, when a command fails.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from environment import CHECKOUT

SHORT = "--flat_epochs 1 --decay_epochs 0 --slices_per_volume 4 --validation_slices 4 --batch_size 2 --val_interval 1"
FENCE = re.compile(r"^(?P<indent> *)```bash\n(?P<code>.*?)^ *```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
LAST_LINES = 24
NOISE = re.compile(r"WARNING: Location|site-packages|^\s*$|GHSA|[Ww]arn")  # of this machine's pip, of packages


class Command(NamedTuple):
    heading: str
    text: str


def commands(document: str) -> Iterator[Command]:
    """What stands in its bash fences, a command each, with its continuation lines and without comments."""
    for fence in FENCE.finditer(document):
        heading = HEADING.findall(document, 0, fence.start())[-1]
        for text in textwrap.dedent(fence["code"]).replace("\\\n", "\\\0").splitlines():
            if command := re.sub(r"\s+# .*$", "", text).strip():
                yield Command(heading, command.replace("\0", "\n"))


class Newcomer:
    """A fresh clone with an environment that is active, and a folder that stands for /data."""

    def __init__(self, folder: Path) -> None:
        self.clone, self.data, self.home = folder / "clone", folder / "data", folder
        subprocess.run(["git", "clone", "--quiet", CHECKOUT, self.clone], check=True)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        path = f"{folder / 'venv' / 'bin'}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": "", "HOME": str(folder), "COLUMNS": "120"}

    def run(self, text: str) -> tuple[int, str]:
        """Exit status, and what was said, as it would read with the folder at /data."""
        here = text.replace("/data", str(self.data))
        done = subprocess.run(
            ["bash", "-c", here], cwd=self.clone, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said = done.stdout.decode(errors="replace").replace(str(self.data), "/data").replace(str(self.home), "~")
        lines = [line.split("\r")[-1].rstrip() for line in said.splitlines()]
        return done.returncode, "\n".join(line for line in lines if not NOISE.search(line))

    def simulate(self, name: str, subjects: int, layout: str = "brats", *, keep: str = "") -> None:
        """Patients of 2 mm; with `keep`, only files whose names match it."""
        words = ["hmf", "simulate", str(self.data / name), "--subjects", str(subjects), "--spacing", "2"]
        subprocess.run([*words, "--layout", layout], env=self.environment, check=True, capture_output=True)
        for path in (self.data / name).rglob("*.nii.gz"):
            if keep and not re.search(keep, path.name):
                path.unlink()

    def fresh_data(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir()


def for_readme(newcomer: Newcomer) -> None:
    newcomer.simulate("patients", 10)
    newcomer.simulate("new_patients", 2, keep="t1n|t2f")
    for name, contrast in (("T1", "t1n"), ("FLAIR", "t2f")):
        scan = next((newcomer.data / "new_patients").rglob(f"*-{contrast}.nii.gz"))
        shutil.copy(scan, newcomer.clone / f"{name}.nii.gz")


def for_tutorial(newcomer: Newcomer) -> None:
    newcomer.simulate("brats2020", 10)
    newcomer.simulate("clinic", 2, keep="t1n|t2f")
    newcomer.simulate("ixi_all", 4, "ixi")
    for contrast in ("T1", "T2", "PD"):
        with tarfile.open(newcomer.clone / f"IXI-{contrast}.tar", "w") as archive:
            for path in sorted((newcomer.data / "ixi_all").rglob(f"*-{contrast}.nii.gz")):
                archive.add(path, path.name)
    shutil.rmtree(newcomer.data / "ixi_all")


DOCUMENTS: dict[str, Callable[[Newcomer], None]] = {"README.md": for_readme, "docs/tutorial.md": for_tutorial}
STANDS_FOR = {"SOMEBODYS_BUNDLE": "dist/brain_mri_synthesis_hmf_mambainr"}
FIRST = (  # what the documents take for granted; `make` brings its own environment
    "pip install -c constraints.txt torch",
    'pip install -c constraints.txt -e ".[demo,export]"',
)


def shown(command: str, said: str, seconds: float) -> str:
    lines = said.splitlines()
    dropped = len(lines) - LAST_LINES
    if dropped > 0:
        lines = [f"... {dropped} lines", *lines[-LAST_LINES:]]
    return "\n".join(["```console", f"$ {command}", *lines, "```", f"{seconds:.0f} s", ""])


def transcript(newcomer: Newcomer) -> Iterator[str]:
    yield "# A newcomer's transcript\n"
    yield (
        "Made by `make transcript` in a fresh clone and environment. `/data` was a folder of simulated scans of 2 mm;\n"
        f"trainings were cut short with\n`{SHORT}`.\nOf long outputs the last lines are shown.\n"
    )
    yield "## Before\n"
    for text in FIRST:
        yield one(newcomer, text)
    for name, prepare in DOCUMENTS.items():
        newcomer.fresh_data()
        prepare(newcomer)
        yield f"## {name}\n"
        heading = None
        for command in commands((newcomer.clone / name).read_text(encoding="utf-8")):
            if command.heading != heading:
                heading = command.heading
                yield f"### {heading}\n"
            yield one(newcomer, command.text)


def one(newcomer: Newcomer, text: str) -> str:
    """Run it and show it; RuntimeError when it fails."""
    for name, meant in STANDS_FOR.items():
        text = text.replace(name, meant)
    if "monai.bundle run training" in text:
        text = f"{text} \\\n    {SHORT}"
    print(f"$ {text}", flush=True)
    start = time.monotonic()
    status, said = newcomer.run(text)
    if status:
        raise RuntimeError(f"{text}\nended with {status}:\n{said[-4000:]}")
    return shown(text, said, time.monotonic() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=CHECKOUT / "docs" / "transcript.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            content = "\n".join(transcript(Newcomer(Path(folder).resolve())))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
    options.output.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
