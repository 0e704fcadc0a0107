"""Environments of their own for those who use the bundle from outside; a kept one serves again."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent.parent
CONSTRAINTS = ("-c", CHECKOUT / "constraints.txt")


def needs() -> list[str]:
    """What our package needs, torch first, as README says."""
    return ["torch", *sorted(tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["dependencies"])]


def python_with(environment: Path, packages: list[str], *, options: tuple[str | Path, ...] = CONSTRAINTS) -> Path:
    """The Python of an environment with these packages, no more and no less."""
    python, made_with = environment / "bin" / "python", environment / "made_with.txt"
    if not made_with.is_file() or made_with.read_text() != "\n".join(packages):
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        install = [python, "-m", "pip", "install", "--quiet", *options]
        if packages[0] == "torch":  # another order may fetch gigabytes of CUDA
            subprocess.run([*install, "torch"], check=True)
        subprocess.run([*install, *packages], check=True)
        made_with.write_text("\n".join(packages))
    return python
