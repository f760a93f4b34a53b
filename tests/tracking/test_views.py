"""What makes MLflow's pages read well: views of an experiment, and what a run says first."""

from __future__ import annotations

import json

import pytest

from mlflow_server.destination import Destination
from mlflow_server.tracking.remote_run import Opening, RemoteRun
from mlflow_server.tracking.views import PREFIX, view_tags
from nfbmr.run_logger import description
from tests.summaries import run_summary

ESTIMATE = {"value": 0.921, "low": 0.87, "high": 0.961}
METRICS = {"test": {"image_auroc": ESTIMATE}, "validation": {"image_auroc": {"value": 0.8}}}


def tags_of(uri: str, experiment: str) -> dict[str, str]:
    from mlflow import MlflowClient

    stored_experiment = MlflowClient(uri).get_experiment_by_name(experiment)
    assert stored_experiment is not None
    return dict(stored_experiment.tags)


def test_a_new_experiment_has_views(uri):
    RemoteRun(Destination(uri, "parts"), Opening("a", "a", None, 1))
    tags = tags_of(uri, "parts")
    for key, text in view_tags().items():
        view = json.loads(tags[key])
        assert view == json.loads(text)
        state = json.loads(view["state"])
        assert state["selectedColumns"]
        assert set(state["selectedColumns"]) <= set(state["columnWidths"])


def test_an_older_experiment_gets_them_once(uri):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    number = client.create_experiment("older")
    RemoteRun(Destination(uri, "older"), Opening("a", "a", None, 1))
    assert any(key.startswith(PREFIX) for key in tags_of(uri, "older"))
    for key in view_tags():
        client.delete_experiment_tag(number, key)
    RemoteRun(Destination(uri, "older"), Opening("b", "b", None, 1))
    assert not any(
        key.startswith(PREFIX) for key in tags_of(uri, "older")
    )  # whoever removed them wanted that


def test_filters_of_views_are_ones_that_mlflow_takes(uri):
    from mlflow import MlflowClient

    run = RemoteRun(Destination(uri, "parts"), Opening("a", "a", None, 1))
    client = MlflowClient(uri)
    for text in view_tags().values():
        state = json.loads(json.loads(text)["state"])
        order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
        client.search_runs([run.experiment_id], state["searchFilter"], order_by=[order])


def test_a_run_says_first_how_well_it_does():
    text = description(run_summary(metrics=METRICS))
    first = text.splitlines()[0]
    assert first.startswith("Image AUROC **0.921 [0.870, 0.961]** on test images, **0.800** on validation")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["Image AUROC", "0.921 [0.870, 0.961]", "0.800"] in cells
    assert "95% intervals" in text
    assert "report.html" in text


def test_what_was_chosen_on_the_test_set_says_so_first():
    assert "test-peeked" in description(run_summary(metrics=METRICS, test_peeked=True)).splitlines()[0]


def test_a_trial_says_that_the_test_set_was_not_looked_at():
    text = description(run_summary(metrics={"validation": {"image_auroc": ESTIMATE}}))
    assert "not looked at" in text
    assert "on test images" not in text


@pytest.mark.parametrize("name", ["two\nlines", "a|b", "<script>alert(1)</script>"])
def test_a_data_sets_name_stays_on_its_line(name):
    plain, named = (
        description(run_summary(metrics=METRICS, dataset={"name": each})) for each in ("parts", name)
    )
    assert len(named.splitlines()) == len(plain.splitlines())
