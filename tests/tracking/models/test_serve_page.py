"""The page of ``nfbmr serve`` as people meet it, in a real Chromium."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chromium import browser, lacking
from nfbmr.paths import RunPaths, read_json
from tests.tracking.models.serving import TOKEN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PATIENCE = 60.0


class Page:
    """A browser on the page."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        driver.get(address)

    def find(self, selector: str) -> Any:
        from selenium.webdriver.common.by import By

        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def count(self, selector: str) -> int:
        return len(self.driver.execute_script("return document.querySelectorAll(arguments[0])", selector))

    def text(self, selector: str = "body") -> str:
        return str(self.find(selector).text)

    def shows(self, words: str, selector: str = "body") -> None:
        deadline = time.monotonic() + PATIENCE
        while words not in self.text(selector):
            assert time.monotonic() < deadline, f"{words!r} is not shown:\n{self.text()}"
            time.sleep(0.1)

    def upload(self, *files: Path) -> None:
        self.find("#file").send_keys("\n".join(map(str, files)))

    def loaded_pictures(self, number: int) -> list[int]:
        """Widths of the pictures in the topmost answer, once so many have been drawn."""
        script = (
            "return [...document.querySelector('article').querySelectorAll('img')].map(i => i.naturalWidth)"
        )
        deadline = time.monotonic() + PATIENCE
        while True:
            widths = list(self.driver.execute_script(script))
            if len(widths) == number and all(widths):
                return widths
            assert time.monotonic() < deadline, widths
            time.sleep(0.1)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    if lacking():
        pytest.skip(lacking())
    logs = {"browser": "ALL", "performance": "ALL"}
    with browser(1100, 1000, patience=PATIENCE, logs=logs) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def images(runs: Any) -> tuple[Path, Path]:
    """A good part, and one that is not."""
    test = runs.data / "test"
    defect = next(folder for folder in sorted(test.iterdir()) if folder.name != "good")
    return min((test / "good").glob("*.png")), min(defect.glob("*.png"))


def test_the_page(served: Callable[..., Any], driver: Any, runs: Any, images: Any, tmp_path: Path) -> None:
    running = served(str(runs.first), "--host", "0.0.0.0", NFBMR_SERVE_TOKEN=TOKEN)
    threshold = read_json(RunPaths(runs.first).model / "model.json")["scorer"]["threshold"]
    page = Page(driver, running.address)
    page.shows(runs.first.name)
    page.shows(f"rejects above {threshold:.4}"[:18])
    page.upload(images[0])
    page.shows("Not scored: a token is asked for here")
    page.find("#token").send_keys(TOKEN)

    # both at once, one after the other; the model's own threshold, then one that refuses everything
    page.upload(*images)
    page.shows("Score", "article")
    page.shows(images[1].name, "article")
    assert page.loaded_pictures(2) == [96, 96]
    page.find("#threshold").send_keys("-1e9")
    page.find("#heatmap").click()
    page.upload(images[0])
    page.shows("Rejected", "article")
    page.shows("threshold -1.000e+9", "article")
    assert page.loaded_pictures(1) == [96]
    page.find("#threshold").clear()
    page.find("#threshold").send_keys("1e9")
    page.upload(images[1])
    page.shows("Good", "article")

    (tmp_path / "broken.png").write_bytes(b"no image")
    page.upload(tmp_path / "broken.png")
    page.shows("Not scored: not an image", "article")
    assert page.count("article") == 6

    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
        and event["params"]["documentURL"].startswith(running.address)  # not the browser's own pages
    }
    assert f"{running.address}/score" in asked
    assert all(address.startswith((running.address, "data:", "blob:")) for address in asked), asked
    complaints = [line["message"] for line in driver.get_log("browser") if line["level"] == "SEVERE"]
    # what was refused above, and nothing of the page's own policy or code
    assert all(re.search("status of (401|422)", complaint) for complaint in complaints), complaints


def test_it_has_everything_in_itself() -> None:
    from cluster.serving.page import PAGE, POLICY

    assert b"//" not in re.sub(rb"\s//[^\n]*", b"", PAGE.replace(b"</", b""))
    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY
