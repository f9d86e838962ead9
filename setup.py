"""A wheel with the native library is of its platform: `make wheel`."""

from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

_LIBRARIES = Path(__file__).parent / "raydistill/serving/native/lib"
# The C library that the linked functions need has had them since 2.27 (expf).
_TAGS = {"x86_64": "manylinux_2_27_x86_64", "aarch64": "manylinux_2_27_aarch64"}


class PlatformWheel(bdist_wheel):
    """A wheel that runs with any Python, on one platform if it has a library."""

    def get_tag(self) -> tuple[str, str, str]:
        """The tags of Python, of its ABI, and of the platform of the library in the package."""
        names = [file.name for file in _LIBRARIES.glob("*.so")]
        found = [tag for machine, tag in _TAGS.items() if any(machine in name for name in names)]
        return "py3", "none", found[0] if found else "any"


if __name__ == "__main__":
    setup(cmdclass={"bdist_wheel": PlatformWheel})
