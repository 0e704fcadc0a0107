"""The package is described in pyproject.toml; here only its compiled part: the selective scan for CPUs.

It needs a C++ compiler and nothing of Python or torch. Without one the package installs all the same.
"""

import runpy
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

BUILD = runpy.run_path(str(Path(__file__).parent / "hmf_networks" / "ops" / "_scan_native_build.py"))


class BuildKernel(build_ext):
    """Compile the library once for each instruction set, which an Extension cannot say."""

    def build_extension(self, ext: Extension) -> None:
        try:
            BUILD["build"](Path(self.get_ext_fullpath(ext.name)))
        except RuntimeError as error:
            self.warn(f"{error}; the package works without its compiled scan, only slower")


setup(
    ext_modules=[
        Extension(
            "hmf_networks.ops._scan_native_library",
            ["hmf_networks/ops/_scan_native.cpp"],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernel},
)
