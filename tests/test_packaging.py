"""What the package says of itself on an index, and that its wheel has every file that it needs."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = [ROOT / "lebm", ROOT / "recipes"]


@pytest.fixture(scope="module")
def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def entries(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_the_metadata_of_an_index_are_complete(settings):
    metadata = settings["metadata"]
    prefix = "Programming Language :: Python :: "
    classifiers = entries(metadata["classifiers"])
    versions = [line.removeprefix(prefix) for line in classifiers if line.startswith(f"{prefix}3.")]
    assert versions == ["3.10", "3.11", "3.12", "3.13"]
    assert settings["options"]["python_requires"] == f">={versions[0]}"
    assert metadata["license"] == "Apache-2.0"
    assert not [line for line in classifiers if line.startswith("License ::")]  # beside a licence expression
    assert (ROOT / metadata["license_files"]).read_text().lstrip().startswith("Apache License")
    assert metadata["long_description"] == "file: README.md"
    assert metadata["long_description_content_type"] == "text/markdown"


def test_the_tools_of_make_wheel_are_an_extra(settings):
    extra = settings["options.extras_require"]["release"]
    assert [line.split(">=")[0] for line in entries(extra)] == ["build", "check-wheel-contents", "twine"]
    assert "wheel: $(VENV)/.release-installed" in (ROOT / "Makefile").read_text()


def test_the_wheel_has_every_module_and_data_file(settings):
    """Recipes and models of the package too."""
    places = {"lebm.recipes": ROOT / "recipes"}
    packages = entries(settings["options"]["packages"])
    folders = {name: places.get(name, ROOT / name.replace(".", "/")) for name in packages}
    packed = {file for folder in folders.values() for file in folder.glob("*.py")}
    for name, patterns in settings["options.package_data"].items():
        for pattern in patterns.split(", "):
            found = set(folders[name].glob(pattern))
            assert found, f"{name}: nothing is {pattern}"
            packed |= found
    files = {file for folder in FOLDERS for file in folder.rglob("*") if file.is_file()}
    files = {file for file in files if "__pycache__" not in file.parts and file.suffix != ".pyc"}
    links = {file for file in files if (ROOT / "lebm" / "recipes") in file.parents}
    assert files - links - packed == set()
    suffixes = {".yaml": 60, ".safetensors": 4, ".parquet": 6}
    for suffix, least in suffixes.items():
        assert sum(file.suffix == suffix for file in packed) >= least, suffix
