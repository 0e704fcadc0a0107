"""The package is described in pyproject.toml; here what that cannot say.

The compiled part is the selective scan for CPUs: it needs a C++ compiler and nothing of Python or torch.
Without one the package installs all the same. A wheel takes the bundle along.
"""

import runpy
import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

BUILD = runpy.run_path(str(Path(__file__).parent / "hmf_networks" / "ops" / "_scan_native_build.py"))


class BuildKernel(build_ext):
    """Compile the library once for each instruction set, which an Extension cannot say."""

    def build_extension(self, ext: Extension) -> None:
        try:
            BUILD["build"](Path(self.get_ext_fullpath(ext.name)))
        except RuntimeError as error:
            self.warn(f"{error}; the package works without its compiled scan, only slower")


class BuildWithBundle(build_py):
    """Give a wheel the bundle: who installs it needs no checkout. In place it lies beside the package."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            bundle = Path(self.build_lib, "hmf_networks", "bundle")
            for folder in ("configs", "docs"):  # a training writes into others
                shutil.copytree(Path("bundle", folder), bundle / folder, dirs_exist_ok=True)
            (bundle / "models").mkdir(exist_ok=True)
            for name in ("LICENSE", "bundle/models/model.pt", "bundle/models/model.json"):
                shutil.copy(name, bundle / name.removeprefix("bundle/"))


setup(
    ext_modules=[
        Extension("hmf_networks.ops._scan_native_library", ["hmf_networks/ops/_scan_native.cpp"], optional=True)
    ],
    cmdclass={"build_ext": BuildKernel, "build_py": BuildWithBundle},
)
