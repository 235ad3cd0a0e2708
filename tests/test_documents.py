"""What the documents show must run, and what they link to must exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_example_of_the_readme_runs_without_lightning():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    check = "\nimport sys\nassert not any(name.startswith('lightning') for name in sys.modules), 'Lightning was imported'\n"
    result = subprocess.run([sys.executable, "-c", code + check], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "torch.Size([1000, 8])" in result.stdout
    assert "'nonfinite': 0.0" in result.stdout
    assert 0.5 < float(re.search(r"tensor\((.*?)\)", result.stdout).group(1)) < 1.2  # the added term pulls the first coordinate to 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_of_the_documents_exist(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
