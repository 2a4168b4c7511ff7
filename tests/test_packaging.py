"""What is built to be installed: the library, the whole library, and nothing but the library.

Tried against planted violations: a file of notes in ``jaxlab``, no ``py.typed``, NumPy among the dependencies, and the
tests among the packages.
"""

import email.message
import email.parser
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import jaxlab

ROOT = Path(__file__).parents[1]
SOURCES = {str(path.relative_to(ROOT)) for path in (ROOT / "jaxlab").rglob("*.py")} | {"jaxlab/py.typed"}
NAME = f"jaxlab-{jaxlab.__version__}"

pytestmark = pytest.mark.skipif(
    not (ROOT / "jaxlab").is_dir(), reason="the installed library is tested, without its sources"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A directory with the wheel and the source distribution; nothing is downloaded."""
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return directory


def metadata(content: bytes) -> email.message.Message:
    return email.parser.BytesParser().parsebytes(content)


def test_the_wheel_has_the_library_and_nothing_else(built):
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
    described = {f"{NAME}.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")}
    assert names == SOURCES | described


def test_the_library_needs_three_others(built):
    with zipfile.ZipFile(built / f"{NAME}-py3-none-any.whl") as wheel:
        found = metadata(wheel.read(f"{NAME}.dist-info/METADATA"))
    needed = [line for line in found.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(re.split(r"[^\w-]", line)[0] for line in needed) == ["jax", "jaxlib", "jaxtyping"]
    assert found["Requires-Python"] == ">=3.11"
    assert found["Version"] == jaxlab.__version__


def test_the_source_distribution_makes_the_same_wheel(built, tmp_path):
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
        archive.extractall(tmp_path, filter="data")
    assert names == SOURCES | {"README.md", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"}
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=tmp_path / NAME, check=True, capture_output=True)
    one, other = (zipfile.ZipFile(path / f"{NAME}-py3-none-any.whl") for path in (built, tmp_path))
    with one, other:
        assert {name: one.read(name) for name in one.namelist()} == {
            name: other.read(name) for name in other.namelist()
        }
