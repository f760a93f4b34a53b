"""What the parent's record says while a sweep goes on, after a kill, and at its end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.naming import TAG_LENGTH, note_text
from nfbmr.config import Config, FlowConfig, TrackingConfig
from nfbmr.paths import RunPaths
from nfbmr.records import Record, read_record
from nfbmr.tracking import FolderTracker
from tests.summaries import run_summary
from tune.execution.trial_spec import State, TrialResult
from tune.records.children import child_name, child_tags, children_of, record_of, short_names
from tune.records.parent import DrawSummary, ParentRecord
from tune.records.paths import AblationPaths, PlanPaths, SweepPaths
from tune.search.plots import draw_study

PLAN: dict[str, Any] = {
    "trials": 4,
    "sampler": "tpe",
    "objective": [{"name": "validation/image_auroc", "direction": "maximize"}],
    "space": {"flow.blocks": "2 to 8", "flow.hidden": "16 to 64, logarithmic"},
}
CONFIG = Config(flow=FlowConfig(blocks=6), tracking=TrackingConfig(kind="folder"))


def begun(paths: PlanPaths, plan: dict[str, Any] = PLAN, draw: DrawSummary | None = None) -> ParentRecord:
    parent = ParentRecord(paths, CONFIG, draw=draw)
    parent.begin(plan, CONFIG)
    return parent


def trial(paths: SweepPaths, number: int) -> FolderTracker:
    """The record of a trial that has begun."""
    key = f"{number:04d}"
    return FolderTracker(
        RunPaths(paths.trial(number)).journal,
        run_id=f"{paths.name}-{key}",
        parent_id=paths.name,
        system_metrics_every=None,
    )


def child(paths: SweepPaths, number: int) -> Record:
    return read_record(RunPaths(paths.trial(number)).journal)


def last(record: Record, name: str) -> float:
    return record.metrics[name][-1].value


def test_settings_say_what_was_searched_and_what_it_began_from(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "tiles")
    begun(paths).end(None, "finished")
    record = read_record(paths.journal)
    assert record.run_id == "tiles"
    assert record.params["space.flow.blocks"] == "2 to 8"
    assert "flow.blocks" not in record.params  # what it begins from is not what any trial has
    assert record.params["mapping.latent"] == CONFIG.mapping.latent
    assert record.params["sweep.sampler"] == "tpe"
    assert record.tags["nfbmr.kind"] == "sweep"
    assert record.status == "finished"


def test_counts_and_the_best_so_far_by_the_number_of_trials_that_ended(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "tiles")
    parent = begun(paths)
    for number, (state, auroc) in enumerate(
        [("finished", 0.8), ("pruned", None), ("finished", 0.7), ("failed", None), ("finished", 0.9)]
    ):
        told = None if auroc is None else run_summary(auroc)
        parent.outcome(TrialResult(f"{number:04d}", state, told))
    parent.outcome(TrialResult("0005", "interrupted"))
    parent.outcome(TrialResult("0004", "finished", run_summary(0.9)))  # told twice, counted once
    parent.end(None, "finished")
    record = read_record(paths.journal)
    assert [(p.step, p.value) for p in record.metrics["best/image_auroc"]] == [(1, 0.8), (3, 0.8), (5, 0.9)]
    assert [p.value for p in record.metrics["objective/image_auroc"]] == [0.8, 0.7, 0.9]
    assert {s: last(record, f"trials/{s}") for s in ("finished", "pruned", "failed")} == {
        "finished": 3,
        "pruned": 1,
        "failed": 1,
    }


def test_less_is_better_where_the_plan_says_so(tmp_path: Path) -> None:
    plan = PLAN | {"objective": [{"name": "cost.latency_ms", "direction": "minimize"}]}
    parent = begun(SweepPaths(tmp_path / "tiles"), plan)
    for number, latency in enumerate((5.0, 3.0, 4.0)):
        parent.outcome(TrialResult(f"{number:04d}", "finished", run_summary(), cost={"latency_ms": latency}))
    parent.end(None, "finished")
    record = read_record(tmp_path / "tiles" / "tracking")
    assert last(record, "best/cost.latency_ms") == 3.0


def test_going_on_after_a_kill_continues_the_same_record(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "tiles")
    first = begun(paths)
    for number, auroc in enumerate((0.9, 0.8)):
        trial(paths, number).finish()
        first.outcome(TrialResult(f"{number:04d}", "finished", run_summary(auroc)))
    # The driver is killed here, when the third trial has ended and nobody has heard of it.
    trial(paths, 2).finish()
    second = begun(paths)
    second.outcome(TrialResult("0002", "finished", run_summary(0.7)))
    second.end(None, "finished")
    record = read_record(paths.journal)
    assert [p.step for p in record.metrics["trials/finished"]] == [1, 2, 3]
    assert last(record, "best/image_auroc") == 0.9
    assert record.status == "finished"


@pytest.mark.parametrize(
    ("state", "status"),
    [("finished", "finished"), ("pruned", "pruned"), ("failed", "failed"), ("interrupted", "killed")],
)
def test_a_trial_whose_worker_is_gone_gets_the_end_that_its_outcome_says(
    tmp_path: Path, state: State, status: str
) -> None:
    paths = SweepPaths(tmp_path / "tiles")
    parent = begun(paths)
    worker = trial(paths, 0)
    worker.metrics({"flow/loss": 0.5}, step=1)
    worker._journal.close()  # as the kernel does when the worker is killed
    parent.outcome(TrialResult("0000", state, error="out of memory" if state == "failed" else None))
    record = child(paths, 0)
    assert record.status == status
    assert record.ended == record.metrics["flow/loss"][0].time
    if state == "failed":
        assert record.tags["nfbmr.error"] == "out of memory"
        assert "out of memory" in record.tags["mlflow.note.content"]


def test_a_trial_that_failed_before_its_record_began_gets_one(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "tiles")
    parent = begun(paths)
    parent.outcome(TrialResult("0003", "failed", error="the data is not there"))
    record = child(paths, 3)
    assert (record.run_id, record.parent_id, record.status) == ("tiles-0003", "tiles", "failed")
    assert record.tags["nfbmr.trial"] == "0003"


def test_a_trial_that_never_began_gets_no_record(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "tiles")
    begun(paths).outcome(TrialResult("0000", "interrupted"))
    assert list(children_of(paths)) == []


def test_a_record_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "tiles")
    worker = trial(paths, 0)
    begun(paths).outcome(TrialResult("0000", "failed", error="lost"))
    worker.metrics({"flow/loss": 0.5}, step=1)
    worker.finish()
    assert child(paths, 0).status == "finished"


def test_an_interruption_does_not_undo_an_end(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "tiles")
    trial(paths, 0).finish()
    begun(paths).outcome(TrialResult("0000", "interrupted"))
    assert child(paths, 0).status == "finished"


def test_the_table_becomes_the_description_and_files_become_artifacts(tmp_path: Path) -> None:
    paths = AblationPaths(tmp_path / "table5")
    parent = begun(paths, {"table": "paper-table5", "metric": "image_auroc"})
    paths.table("md").write_text("| row | AUROC |\n|---|---|\n| n=1 | 97.4 |\n")
    paths.table("csv").write_text("row,auroc\n")
    paths.pictures.mkdir()
    (paths.pictures / "bars.png").write_bytes(b"png")
    parent.outcome(TrialResult("n=1/bottle/seed-0", "finished", run_summary(0.5, "test")))
    parent.end(None, "finished")
    record = read_record(paths.journal)
    assert record.tags["mlflow.note.content"].startswith("| row | AUROC |")
    assert {(a.path.name, a.folder) for a in record.artifacts} == {
        ("table.md", ""),
        ("table.csv", ""),
        ("bars.png", "pictures"),
    }
    assert record.params["ablation.table"] == "paper-table5"
    assert last(record, "objective/image_auroc") == 0.5


def test_a_long_table_is_cut_between_rows(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "tiles")
    parent = begun(paths)
    paths.table("md").write_text("| trial | AUROC |\n|---|---|\n" + "| 0001 | 0.9 |\n" * 2000)
    parent.end(None, "finished")
    note = read_record(paths.journal).tags["mlflow.note.content"]
    assert len(note) <= TAG_LENGTH
    rows = [line for line in note.splitlines() if line.startswith("|")]
    assert set(rows[2:]) == {"| 0001 | 0.9 |"}
    assert f"{2002 - len(rows)} more lines" in note


@given(st.text(alphabet="ab|\n", max_size=400), st.integers(60, 200))
def test_a_note_is_within_the_limit_and_begins_as_the_text_does(text: str, limit: int) -> None:
    note = note_text(text, limit)
    assert len(note) <= limit
    if len(text) <= limit:
        assert note == text
    else:
        assert text.startswith(note[: note.rindex("\n")])


def test_a_sweep_that_is_killed_says_how_far_it_came(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "tiles")
    parent = begun(paths)
    parent.outcome(TrialResult("0000", "finished", run_summary(0.9)))
    parent.end(None, "killed")
    record = read_record(paths.journal)
    assert record.status == "killed"
    assert record.tags["mlflow.note.content"] == "1 finished"


def test_without_a_record_nothing_is_written(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"tracking": TrackingConfig(kind="none")})
    paths = SweepPaths(tmp_path / "tiles")
    parent = ParentRecord(paths, config)
    parent.begin(PLAN, config)
    parent.end(None, "finished")
    assert not paths.journal.exists()


def test_a_picture_that_cannot_be_drawn_does_not_cost_the_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = SweepPaths(tmp_path / "tiles")
    parent = begun(paths, draw=lambda _: draw_study(paths, ["validation/image_auroc"]))
    paths.study.write_text("no journal of Optuna's\n")
    with caplog.at_level(logging.WARNING):
        parent.end(None, "finished")
    assert read_record(paths.journal).status == "finished"
    assert "picture" in caplog.text


def test_names_and_labels_of_children() -> None:
    settings = {"flow.blocks": 4, "features.taps": ["blocks.4", "blocks.5"], "train.flow.lr": 0.00031622}
    assert child_name("0001", settings) == "0001 blocks=4 taps=blocks.4+blocks.5 lr=0.0003162"
    assert child_tags("tiles", "0001", settings)["searched.features.taps"] == "blocks.4+blocks.5"
    assert len(child_name("0001", {f"key.{i}": "x" * 50 for i in range(20)})) <= 120


@given(st.lists(st.from_regex(r"[abc](\.[abc]){0,3}", fullmatch=True), unique=True))
def test_short_names_tell_their_names_apart(names: list[str]) -> None:
    short = short_names(dict.fromkeys(names))
    assert len(set(short.values())) == len(names)
    assert all(f".{name}".endswith(f".{short[name]}") for name in names)


def test_children_are_found_whatever_they_hold(tmp_path: Path) -> None:
    paths = AblationPaths(tmp_path / "table5")
    for cell in (paths.cell("n=2", "bottle", 0), paths.cell("n=2", None, 1)):
        FolderTracker(RunPaths(cell).journal, run_id=cell.name, system_metrics_every=None).finish()
        (cell / "model" / "seed-9").mkdir(parents=True)
    found = {found.key: found for found in children_of(paths)}
    assert list(found) == ["n=2/bottle/seed-0", "n=2/seed-1"]
    assert record_of(found["n=2/seed-1"].paths.journal).status == "finished"
