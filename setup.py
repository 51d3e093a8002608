"""Wheels hold compiled parts, for every Python 3 of one kind of machine; everything else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.dist import Distribution


class Compiled(Distribution):
    """A distribution whose files depend on the machine."""

    def has_ext_modules(self) -> bool:
        """Say so to setuptools."""
        return True


class Wheel(bdist_wheel):
    """A wheel whose compiled parts are programs and libraries of their own, not modules of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag without a version of CPython."""
        *_, platform = super().get_tag()
        return "py3", "none", platform


SHARED = [(str(path.parent), [str(path)]) for path in sorted(Path("share").rglob("*")) if path.is_file()]
"""Man pages and completions of shells, if scripts/shell_files.py has written them."""

setup(data_files=SHARED, distclass=Compiled, cmdclass={"bdist_wheel": Wheel})
