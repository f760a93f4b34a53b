"""The pages as users see them, in a real Chromium: a sweep made with the real command, on a real server."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chromium import browser, lacking
from nfbmr.resolve import dump_yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE = 60.0


class Pages:
    """A browser on the pages of a server."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self, place: str = "") -> None:
        """In a tab of its own, as whoever follows a link does."""
        self.driver.switch_to.new_window("tab")
        self.driver.get(f"{self.address}/{place}")

    def requests(self) -> dict[str, Any]:
        """What was asked since the last call, and the status of each answer; what failed has none."""
        asked: dict[str, str] = {}
        answers: dict[str, Any] = {}
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            about = event["params"]
            if event["method"] == "Network.requestWillBeSent":
                asked[about["requestId"]] = f"{about['request']['method']} {about['request']['url']}"
            elif event["method"] == "Network.responseReceived":
                answers[about["requestId"]] = about["response"]["status"]
            elif event["method"] == "Network.loadingFailed" and not about.get("canceled"):
                answers[about["requestId"]] = about["errorText"]
        return {asked[key]: answer for key, answer in answers.items() if key in asked}

    def errors(self) -> list[str]:
        """Boxes that say that something went wrong."""
        boxes = "[class*=alert-error], [class*=notification-notice]"
        said = self.run(f"return [...document.querySelectorAll('{boxes}')].map(e => e.innerText.trim())")
        return [text for text in said if text]

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
def pages(swept) -> Iterator[Pages]:
    if lacking():
        pytest.skip(lacking())
    with browser(1700, 900, patience=PATIENCE, logs={"performance": "ALL"}) as driver:
        yield Pages(driver, swept.address)


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


@pytest.fixture(scope="module")
def registered(swept) -> dict[str, str]:
    """A model of the sweep's, registered as ``woven``: the ids of its run and its own."""
    model = swept.post("logged-models/search", {"experiment_ids": ["1"]}).json()["models"][0]["info"]
    assert swept.post("registered-models/create", {"name": "woven"}).ok
    body = {"name": "woven", "source": f"models:/{model['model_id']}", "run_id": model["source_run_id"]}
    made = swept.post("model-versions/create", {**body, "model_id": model["model_id"]})
    assert made.ok, made.text
    return {"RUN": model["source_run_id"], "MODEL": model["model_id"]}


TRAINING = "workflowType=machine_learning"
PLACES = {
    "the first page": ("", "Welcome to MLflow"),
    "experiments": (f"#/experiments?{TRAINING}", "nfbmr"),
    "an experiment": ("#/experiments/1", "nfbmr"),
    "runs": (f"#/experiments/1/runs?{TRAINING}", "matching runs"),
    "runs, as MLflow shows them at first": ("#/experiments/1/runs", "matching runs"),
    "runs with their metrics": (
        f"#/experiments/1/runs?{TRAINING}&viewStateShareKey=nfbmr-runs",
        "best/image_auroc",
    ),
    "a run": (f"#/experiments/1/runs/RUN?{TRAINING}", "Parameters"),
    "curves of a run": (f"#/experiments/1/runs/RUN/model-metrics?{TRAINING}", "flow"),
    "artifacts of a run": (f"#/experiments/1/runs/RUN/artifacts?{TRAINING}", "report.html"),
    "models of an experiment": (f"#/experiments/1/models?{TRAINING}", "Model name"),
    "a model": (f"#/experiments/1/models/MODEL?{TRAINING}", "Model ID"),
    "the registry": (f"#/models?{TRAINING}", "woven"),
    "a registered model": (f"#/models/woven?{TRAINING}", "Version 1"),
    "a version of a model": (f"#/models/woven/versions/1?{TRAINING}", "Registered At"),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_page_opens_without_an_error(pages, registered, place):
    address, words = PLACES[place]
    for name, value in registered.items():
        address = address.replace(name, value)
    pages.requests()
    pages.open(address)
    pages.shows(words)
    answers: dict[str, Any] = {}

    def quiet() -> bool:
        """Nothing was asked for a while: the page is whole."""
        time.sleep(1.5)
        new = pages.requests()
        answers.update(new)
        return not new

    pages.wait(quiet, "the page goes on asking")
    assert any("/ajax-api/" in asked for asked in answers)
    wrong = {asked: answer for asked, answer in answers.items() if answer not in (200, 204, 304)}
    assert wrong == {}
    assert pages.errors() == []
    assert "closed on this server" not in pages.text()


def test_nothing_is_written_into_the_pages(swept):
    import mlflow.server

    shipped = Path(mlflow.server.__file__).parent / "js" / "build" / "index.html"
    assert swept.ask("GET", "/").content == shipped.read_bytes()


def test_the_address_that_is_printed_after_a_run_opens_on_its_metrics(pages, swept):
    from mlflow_server.destination import page

    address = page(swept.address, "1")
    pages.open(address.removeprefix(f"{swept.address}/"))
    column = "metrics.`best/image_auroc`"
    (value,) = pages.wait(lambda: pages.cells(column), "no column of metrics")
    assert 0.0 <= float(value) <= 1.0


def test_the_trials_of_a_sweep_are_below_it(pages):
    pages.open(f"#/experiments/1/runs?{TRAINING}&viewStateShareKey=nfbmr-runs")
    name = "attributes.`Run Name`"
    assert pages.wait(lambda: pages.cells(name), "no runs") == ["sweep woven"]
    assert pages.cells("metrics.`best/image_auroc`")[0] not in ("", "-")
    pages.wait(lambda: not pages.run("document.querySelector('.ag-row button').click()"), "nothing to unfold")
    pages.wait(lambda: len(pages.cells(name)) == 5, "the trials are not unfolded")
    assert [each[:4] for each in pages.cells(name)[1:]] == ["0003", "0002", "0001", "0000"]


def test_trials_are_sorted_by_what_they_were_searched_for(pages, swept):
    pages.open(f"#/experiments/1/runs?{TRAINING}&viewStateShareKey=nfbmr-trials")
    column = "metrics.`validation/image_auroc`"
    pages.wait(lambda: len(pages.cells(column)) == 4, "no column of the objective")
    shown = [float(value) for value in pages.cells(column)]
    assert shown == sorted(shown, reverse=True)
    search = {"experiment_ids": ["1"], "order_by": ["metrics.`validation/image_auroc` DESC"]}
    best = swept.post("runs/search", search).json()["runs"][0]
    assert pages.cells("attributes.`Run Name`")[0] == best["info"]["run_name"]
    assert set(pages.cells("params.`flow.hidden`")) <= {"4", "8"}


def test_the_views_have_names_in_the_menu(pages):
    pages.open(f"#/experiments/1/runs?{TRAINING}")
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
    pages.open(f"#/experiments/1/runs?{TRAINING}&viewStateShareKey=nfbmr-trials&compareRunsMode=CHART")
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
    pages.open(f"#/experiments/1/runs/{runs['sweep woven']}?{TRAINING}")
    pages.shows("Chosen: trial 000")
    tested = swept.post("runs/search", {"experiment_ids": ["1"], "filter": "metrics.`test/image_auroc` >= 0"})
    run = tested.json()["runs"][0]["info"]
    pages.open(f"#/experiments/1/runs/{run['run_id']}?{TRAINING}")
    pages.shows("on test images")
    pages.shows("sweep woven")


def test_the_roc_curve_and_the_report_are_shown_in_place(pages, swept):
    tested = swept.post("runs/search", {"experiment_ids": ["1"], "filter": "metrics.`test/image_auroc` >= 0"})
    run_id = tested.json()["runs"][0]["info"]["run_id"]
    pages.open(f"#/experiments/1/runs/{run_id}/artifacts?{TRAINING}")
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
