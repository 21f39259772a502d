"""Builds the shim into the package. Everything else about the project is in pyproject.toml."""

import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SHIM = Path("ktls/shim")


class BuildShim(build_ext):
    """Let ktls/shim/Makefile build libktls.so: it is a library for LD_PRELOAD, not a Python module."""

    def get_ext_filename(self, fullname: str) -> str:
        """Name the file for what it is: no Python ABI in it, so no ABI tag on it."""
        return f"{fullname.replace('.', '/')}.so"

    def build_extension(self, ext: Extension) -> None:
        """Run make, with the result where setuptools expects it."""
        target = Path(self.get_ext_fullpath(ext.name)).absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["make", "--no-print-directory", "-C", str(SHIM), f"OUT={target}"], check=True)


class PlatformWheel(bdist_wheel):
    """One wheel for every Python 3 on this platform: the shim is native, but knows nothing of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Keep setuptools' platform, drop its interpreter and ABI."""
        return "py3", "none", super().get_tag()[2]


setup(
    cmdclass={"build_ext": BuildShim, "bdist_wheel": PlatformWheel},
    ext_modules=[Extension("ktls.shim.libktls", sorted(str(path.as_posix()) for path in SHIM.glob("*.c")))],
)
