"""Summaries: what is written is what the schemas say, older files are read, others are refused by name."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from pydantic import ValidationError

from nfbmr.errors import OutputError
from nfbmr.evaluation.intervals import UNDEFINED
from nfbmr.evaluation.summary import RunSummary
from scripts.schemas import FOLDER, schemas
from tests.summaries import run_summary, sweep_summary
from tune.records.ablation_summary import AblationSummary, EntryFacts
from tune.records.sweep_summary import SweepSummary


def test_the_schemas_in_the_documentation_are_those_of_the_code() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert written == dict(schemas()), "make docs writes them"


@pytest.mark.parametrize(
    "summary",
    [
        run_summary(0.9),
        run_summary(0.9, "test", leak="Half of the test images have a twin.", kinds={"good": 3, "dent": 2}),
        run_summary(None, "test", gpu_memory={"peak_bytes": 3, "total_bytes": 8}),
        sweep_summary(),
        sweep_summary(errors={"0001": "no such tap"}),
    ],
    ids=["fitted", "tested", "undefined", "sweep", "failed"],
)
def test_what_is_written_is_as_its_schema_says_and_is_read_back(
    summary: RunSummary | SweepSummary, tmp_path: Path
) -> None:
    summary.write(tmp_path / "summary.json")
    values = json.loads((tmp_path / "summary.json").read_text())
    jsonschema.validate(values, type(summary).json_schema())
    assert values["format"] == type(summary).FORMAT
    assert type(summary).read(tmp_path / "summary.json").as_json() == summary.as_json()


def test_the_reference_of_an_ablation_is_as_the_schema_says() -> None:
    reference = EntryFacts(value=0.9, low=None, high=None, seeds=1)
    jsonschema.validate(reference.as_json(), EntryFacts.model_json_schema(mode="serialization"))
    assert reference.as_json()["difference"] is None


def test_nothing_is_said_of_a_test_set_that_was_not_read() -> None:
    fitted = run_summary(0.9)
    assert not fitted.tested
    assert {"leak", "report", "kinds"}.isdisjoint(fitted.as_json())
    assert run_summary(0.9, "test").as_json()["leak"] is None


def test_a_file_of_an_earlier_version_is_read_and_later_keys_are_left_alone() -> None:
    values = run_summary(0.9, "test").as_json()
    later = ("format", "doubt", "known_defects", "notes", "pixel_threshold", "gpu_memory", "parameters")
    earlier = {key: value for key, value in values.items() if key not in later}
    earlier["selection"] = {
        "on": "validation",
        "auroc": 0.9,
        "weights": [0.5, 0.5],
        "scales": [1.0, 2.0],
        "reduction": "topk",
        "false_reject_rate": 0.05,
        "epochs": {"flow": 3},
        "candidates": [],
    }
    summary = RunSummary.from_json(earlier)
    assert summary.estimate("test").value == 0.9
    assert (summary.known_defects, summary.notes, summary.doubt) == ({}, (), None)
    assert summary.selection.epochs == {"flow": 3}
    assert RunSummary.from_json({**values, "of_tomorrow": 3}).as_json() == values


def test_saved_seconds_of_stages_that_were_called_those_of_flows_are_read() -> None:
    values = sweep_summary().as_json()
    earlier = {**values, "format": 1, "saved_seconds": {"features": 2.0, "flows": 7.5}}
    assert SweepSummary.from_json(earlier).saved_seconds.stages == 7.5
    assert SweepSummary.from_json({**earlier, "format": 0}).saved_seconds.stages == 7.5


@pytest.mark.parametrize("written", [{}, {"format": 1}])
def test_an_ablation_of_an_earlier_version_is_read(written: dict[str, int]) -> None:
    values: dict[str, Any] = {
        **dict.fromkeys(("name", "ablation_dir", "table", "title", "about", "metric", "reference"), "x"),
        **{key: [] for key in ("metrics", "seeds", "categories", "notes", "pictures")},
        **{key: {} for key in ("files", "config", "rows")},
        "split_seeds": "same",
        "by": "kind",
        "cells": {"asked": 2},
        "seconds": 9.0,
        "flows": {"trained": 1, "reused": 3, "saved_seconds": 7.5},
    }
    summary = AblationSummary.from_json({**values, **written})
    assert (summary.flows.trained, summary.flows.reused) == (1, 3)
    assert summary.saved_seconds.stages == 7.5
    assert AblationSummary.from_json(summary.as_json()) == summary


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"format": 2}, "has format 2, and this version reads up to 1"),
        ({"metrics": None}, "metrics"),
        ({"selection": {"on": "validation"}}, "selection.auroc: field required"),
        ({"seed": "first"}, "seed"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name_with_what_to_do(
    change: dict[str, Any], what: str, tmp_path: Path
) -> None:
    file = tmp_path / "summary.json"
    file.write_text(json.dumps({**run_summary(0.9).as_json(), **change}))
    with pytest.raises(OutputError, match="summary of a run") as error:
        RunSummary.read(file)
    assert what in str(error.value)
    assert str(file) in str(error.value)
    assert error.value.fix


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"name": "tiles"}'])
def test_files_that_hold_something_else_are_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    file.write_text(text)
    with pytest.raises(OutputError) as error:
        SweepSummary.read(file)
    assert str(file) in str(error.value)


def test_a_configuration_that_this_version_does_not_know_is_named() -> None:
    summary = run_summary(0.9, config={"flow": {"blocks": 4, "of_yesterday": 1}})
    assert summary.estimate("validation").value == 0.9
    with pytest.raises(OutputError, match=r"(?s)flow\.of_yesterday.*train again"):
        _ = summary.configuration


def test_file_names_that_are_no_text_survive(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    summary = run_summary(0.9, "test", unreadable={name: "truncated"})
    summary.write(tmp_path / "summary.json")
    assert RunSummary.read(tmp_path / "summary.json").unreadable == {name: "truncated"}


def test_summaries_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        run_summary(0.9).seed = 1  # type: ignore[misc]


def test_every_number_has_the_name_that_objectives_use() -> None:
    numbers = run_summary(0.9, timings={"flow": 2.0}, parameters={"flow": 1200}).numbers()
    assert numbers["validation/image_auroc"] == 0.9
    assert numbers["timings.flow"] == 2.0
    assert numbers["parameters.flow"] == 1200
    assert not any(map(math.isnan, numbers.values()))
    assert "validation/image_auroc" not in run_summary(None).numbers()
    assert run_summary(None).estimate("validation") is UNDEFINED
