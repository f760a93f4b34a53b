"""The pages as users see them, in a real Chromium: a sweep made with the real command, on a real server."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nfbmr.resolve import dump_yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE = 60.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--window-size=1300,900",
)


class Pages:
    """A browser on the pages of a server."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self, place: str = "") -> None:
        """In a tab of its own, as whoever follows a link does."""
        self.driver.switch_to.new_window("tab")
        self.driver.get(f"{self.address}/{place}")

    def wait(self, true: Callable[[], Any], what: str) -> Any:
        from selenium.common.exceptions import WebDriverException

        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                found = true()
                if found:
                    return found
            except WebDriverException:
                pass  # the page is being drawn anew
            time.sleep(0.2)
        raise AssertionError(f"{what}; the page says:\n{self.text()[:3000]}")

    def text(self) -> str:
        return str(self.run("return document.body.innerText"))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def shows(self, words: str) -> None:
        self.wait(lambda: words in self.text(), f"{words!r} is not shown")

    def click(self, words: str) -> None:
        """Click what carries exactly these words."""
        from selenium.webdriver.common.by import By

        path = f"//*[normalize-space(text())='{words}']"
        self.wait(lambda: [each.click() for each in self.driver.find_elements(By.XPATH, path)[:1]], words)

    def cells(self, column: str) -> list[str]:
        """What stands in a column of the table, from the top."""
        found = self.run(
            "return [...document.querySelectorAll('.ag-cell')]"
            ".filter(e => e.getAttribute('col-id') === arguments[0])"
            ".map(e => [e.getBoundingClientRect().top, e.innerText.trim().split('\\n').pop()])",
            column,
        )
        return [text for _, text in sorted(found)]


@pytest.fixture(scope="module")
def swept(tmp_path_factory, start, call, small) -> Any:
    """A server with a sweep of four trials."""
    folder = tmp_path_factory.mktemp("pages")
    running = start(folder)
    size = {"flow__blocks": 1, "flow__hidden": 4, "mapping__latent": 4, "evaluation__bootstrap": 20}
    (folder / "tiny.yaml").write_text(dump_yaml(small(folder, tracking__kind="auto", **size)))
    (folder / "space.yaml").write_text("mapping.latent: {choice: [4, 8]}\nflow.hidden: {choice: [4, 8]}\n")
    call(
        "sweep", "--config", "tiny.yaml", "--space", "space.yaml", "--trials", "4", "--no-prune", "--local",
        "--name", "woven", cwd=folder, env={"MLFLOW_TRACKING_URI": running.address},
    )  # fmt: skip
    return running


@pytest.fixture(scope="module")
def pages(swept, tmp_path_factory) -> Iterator[Pages]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("there is no Chromium (Debian: chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    driver.set_page_load_timeout(PATIENCE)
    try:
        yield Pages(driver, swept.address)
    finally:
        driver.quit()


@pytest.fixture(autouse=True)
def picture_of_a_failure(request, pages, tmp_path) -> Iterator[None]:
    """What was on the screen, for whoever has to find out."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed or os.environ.get("NFBMR_PICTURES"):
        place = Path(os.environ.get("NFBMR_PICTURES") or tmp_path)
        pages.driver.save_screenshot(str(place / f"{request.node.name}.png"))


def ids(swept) -> dict[str, str]:
    """MLflow's ids of the runs, by name; the parent's too."""
    found = swept.post("runs/search", {"experiment_ids": ["1"], "max_results": 50}).json()["runs"]
    return {run["info"]["run_name"]: run["info"]["run_id"] for run in found}


def test_they_open_on_model_training_without_advertising(pages):
    pages.open()
    pages.shows("Recent Experiments")
    pages.shows("nfbmr")
    text = pages.text()
    assert "Start Demo" not in text
    assert "usage data" not in text
    assert "Assistant" not in text
    side = pages.run("return localStorage.getItem('mlflow.workflowType_v1')")
    assert side == '"machine_learning"'


def test_a_choice_of_the_users_stays(pages):
    pages.open()
    pages.shows("Recent Experiments")
    pages.run("localStorage.setItem('mlflow.workflowType_v1', '\"genai\"')")
    pages.open()
    pages.shows("GenAI")
    assert pages.run("return localStorage.getItem('mlflow.workflowType_v1')") == '"genai"'
    pages.run("localStorage.setItem('mlflow.workflowType_v1', '\"machine_learning\"')")


def test_the_trials_of_a_sweep_are_below_it(pages):
    pages.open("#/experiments/1/runs?viewStateShareKey=nfbmr-runs")
    name = "attributes.`Run Name`"
    assert pages.wait(lambda: pages.cells(name), "no runs") == ["sweep woven"]
    assert pages.cells("metrics.`best/image_auroc`")[0] not in ("", "-")
    pages.wait(lambda: not pages.run("document.querySelector('.ag-row button').click()"), "nothing to unfold")
    pages.wait(lambda: len(pages.cells(name)) == 5, "the trials are not unfolded")
    assert [each[:4] for each in pages.cells(name)[1:]] == ["0003", "0002", "0001", "0000"]


def test_trials_are_sorted_by_what_they_were_searched_for(pages, swept):
    pages.open("#/experiments/1/runs?viewStateShareKey=nfbmr-trials")
    column = "metrics.`validation/image_auroc`"
    pages.wait(lambda: len(pages.cells(column)) == 4, "no column of the objective")
    shown = [float(value) for value in pages.cells(column)]
    assert shown == sorted(shown, reverse=True)
    search = {"experiment_ids": ["1"], "order_by": ["metrics.`validation/image_auroc` DESC"]}
    best = swept.post("runs/search", search).json()["runs"][0]
    assert pages.cells("attributes.`Run Name`")[0] == best["info"]["run_name"]
    assert set(pages.cells("params.`flow.hidden`")) <= {"4", "8"}


def test_the_views_have_names_in_the_menu(pages):
    pages.open("#/experiments/1/runs")
    pages.shows("matching runs")
    pages.click("Views")
    for words in ("Runs, with the trials", "Trials, the best on validation", "Results on test images"):
        pages.shows(words)


def test_trials_are_compared_in_pictures(pages, swept):
    chosen = [run_id for name, run_id in ids(swept).items() if name.startswith("000")]
    pages.open(f"#/compare-runs?runs={str(chosen).replace(chr(39), '%22')}&experiments=[%221%22]")
    pages.shows("Parallel Coordinates Plot")
    plot = "return document.querySelectorAll('.parcoords-line-layer, .js-plotly-plot').length"
    pages.wait(lambda: pages.run(plot), "no plot")
    pages.open("#/experiments/1/runs?viewStateShareKey=nfbmr-trials&compareRunsMode=CHART")
    pages.shows("flow/loss")
    pages.wait(
        lambda: (
            pages.run("return document.querySelectorAll('.js-plotly-plot .scatterlayer path.js-line').length")
            >= 4
        ),
        "no curves of the trials",
    )


def test_a_run_says_first_how_well_it_does(pages, swept):
    runs = ids(swept)
    pages.open(f"#/experiments/1/runs/{runs['sweep woven']}")
    pages.shows("Best: trial 000")
    tested = swept.post("runs/search", {"experiment_ids": ["1"], "filter": "metrics.`test/image_auroc` >= 0"})
    run = tested.json()["runs"][0]["info"]
    pages.open(f"#/experiments/1/runs/{run['run_id']}")
    pages.shows("on test images")
    pages.shows("sweep woven")


def test_the_roc_curve_and_the_report_are_shown_in_place(pages, swept):
    tested = swept.post("runs/search", {"experiment_ids": ["1"], "filter": "metrics.`test/image_auroc` >= 0"})
    run_id = tested.json()["runs"][0]["info"]["run_id"]
    pages.open(f"#/experiments/1/runs/{run_id}/artifacts")
    pages.click("pictures")
    pages.click("roc.png")
    wide = "return Math.max(0, ...[...document.querySelectorAll('img, image')].map(e => e.naturalWidth || 0))"
    pages.wait(lambda: pages.run(wide) > 400, "the picture is not drawn")
    pages.click("report.html")
    frame = pages.wait(lambda: pages.run("return document.querySelector('iframe')"), "no report")
    pages.driver.switch_to.frame(frame)
    try:
        pages.shows("Image AUROC on the test set")
        pages.wait(lambda: pages.run(wide) > 400, "the report shows no pictures")
    finally:
        pages.driver.switch_to.default_content()
