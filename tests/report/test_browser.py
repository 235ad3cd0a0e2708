"""The page in headless Chromium: no errors, pictures, sorting, phone width, printing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.report.test_page import make_run

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]

WATCH = "<script>window.faults = []; addEventListener('error', e => faults.push(e.message), true);"
WATCH += "console.error = (...words) => faults.push(words.join(' '));</script>"
PROBE = """<script>addEventListener("load", () => {
  const column = 2, table = document.querySelector("#summary table");
  const read = () => [...table.tBodies[0].rows].map(row => row.children[column].textContent);
  const before = read(), button = table.querySelectorAll("th button")[column];
  button.click();
  const up = read();
  button.click();
  const down = read();
  document.body.style.width = document.body.style.maxWidth = "358px";  // a phone of 390 px less margins
  const left = document.body.getBoundingClientRect().left;
  const parts = [...document.querySelectorAll("figure, h2, p, .wide, details, nav")];
  const over = parts.filter(part => part.getBoundingClientRect().right > left + 391);
  const wide = over.map(part => part.outerHTML.slice(0, 80));
  const narrow = getComputedStyle(table.tBodies[0].rows[0].cells[0]).display;
  const images = [...document.querySelectorAll("img:not(.chart)")].map(image => image.naturalWidth);
  document.body.style.width = document.body.style.maxWidth = "";
  const small = document.querySelector("button.open");
  const closed = document.querySelectorAll("dialog").length;
  small.click();
  const box = document.querySelector("dialog[open]");
  const large = box.querySelector("img").getBoundingClientRect().width;
  const opened = [closed, small.firstElementChild.getBoundingClientRect().width, large];
  box.click();
  const stacked = getComputedStyle(table.tBodies[0].rows[0].cells[0]).display;
  const charts = [...document.querySelectorAll("img.chart")].filter(image => image.naturalWidth).length;
  document.body.innerHTML = "";
  const told = {faults, before, up, down, wide, images, charts, narrow, opened, stacked};
  document.body.append(JSON.stringify(told));
});</script>"""


def chromium(*words: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lebm.report.page import report

    folder = tmp_path_factory.mktemp("browser")
    runs = [make_run(folder / name, number) for number, name in ((2, "two"), (1, "one"), (10, "ten"))]
    report(runs, folder / "report.html")
    return folder / "report.html"


def test_it_renders_sorts_and_fits_a_phone(page: Path) -> None:
    text = page.read_text()
    watched = text.replace("<style>", WATCH + "<style>", 1).replace("</body>", PROBE + "</body>", 1)
    probe = page.with_name("probe.html")
    probe.write_text(watched)
    shown = re.search(r"<body[^>]*>(\{.*\})</body>", chromium("--dump-dom", probe.as_uri()), re.S)
    assert shown is not None
    found = json.loads(shown[1])
    assert found["faults"] == []
    assert found["before"] == ["2,000", "1,000", "10,000"]
    assert found["up"] == ["1,000", "2,000", "10,000"]  # by number, not by letters
    assert found["down"] == ["10,000", "2,000", "1,000"]
    assert len(found["images"]) == 6
    assert all(width > 0 for width in found["images"])
    assert found["charts"] >= 8
    assert found["wide"] == []
    assert found["narrow"] == "flex"  # a row is a list on a phone
    assert found["stacked"] == "table-cell"
    before, shown_width, large = found["opened"]
    assert before == 0
    assert large > shown_width


def test_it_prints(page: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.pdf"
    chromium(f"--print-to-pdf={target}", page.as_uri())
    content = target.read_bytes()
    assert content.startswith(b"%PDF")
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", content)) < 40
