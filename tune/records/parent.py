"""The parent's record: a sweep or an ablation as one run, under which its trials hang.

It goes through the same journal as every other run, so neither a server that is down nor a driver that is
killed loses any of it: going on opens the journal again, and what happened before is read from the trials'
folders.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from mlflow_server.destination import Destination
from mlflow_server.naming import note_text
from mlflow_server.tracking.sync import status
from mlflow_server.tracking.upload_queue import UploadQueue
from nfbmr.config import Config
from nfbmr.errors import NfbmrError
from nfbmr.journal import FILE
from nfbmr.paths import RunPaths
from nfbmr.records import read_record
from nfbmr.resolve import flat
from nfbmr.trackers import kind_of, make_tracker
from nfbmr.tracking import Status, Tracker
from tune.execution.trial_spec import TrialResult, TrialSpec
from tune.records.ablation_summary import TableSummary
from tune.records.children import NOTE, Child, child_tags, children_of, close_record, record_copy, record_of
from tune.records.paths import PlanPaths, SweepPaths
from tune.records.sweep_summary import SweepSummary

log = logging.getLogger(__name__)

_DEFAULT_OBJECTIVE = "validation/image_auroc"
_COUNTED = ("finished", "pruned", "failed")
_PATIENCE = 15.0

DrawSummary = Callable[[SweepSummary | None], object]
"""Draws the pictures of a sweep; of its summary, where it got as far as one."""


class ParentRecord:
    """Records a sweep or an ablation, and sees to it that its trials' records are whole and arrive.

    Args:
        paths: Paths of the sweep or ablation; its name is the ``run_id``.
        config: The base configuration; its ``tracking`` says where to.
        draw: Draws pictures of a summary into ``paths.pictures`` before they are recorded; None where
            they are drawn elsewhere.

    Example:
        >>> import tempfile
        >>> from nfbmr.config import TrackingConfig
        >>> config = Config(tracking=TrackingConfig(kind="folder"))
        >>> paths = SweepPaths(Path(tempfile.mkdtemp()) / "tiles")
        >>> parent = ParentRecord(paths, config)
        >>> parent.begin({"space": {"flow.blocks": [2, 4, 8]}, "sampler": "tpe"}, config)
        >>> parent.outcome(TrialResult("0000", "failed", error="a loss that is not finite"))
        >>> parent.end(None, "finished")
        >>> record = read_record(paths.journal)
        >>> record.params["space.flow.blocks"], record.metrics["trials/failed"][-1].value
        ('[2, 4, 8]', 1.0)
    """

    def __init__(self, paths: PlanPaths, config: Config, *, draw: DrawSummary | None = None) -> None:
        self.paths = paths
        self.config = config
        self._draw_summary = draw
        self._tracker: Tracker | None = None
        self._uploads: UploadQueue | None = None
        self._states: dict[str, str] = {}
        self._objectives: dict[str, bool] = {}
        self._best: dict[str, float] = {}
        self._earlier_tags: Mapping[str, str] = {}

    def begin(self, plan: Mapping[str, Any], config: Config) -> None:
        """Open the record, or go on with it.

        Args:
            plan: What was asked, as in ``sweep.yaml`` or ``ablation.yaml``. Two of its keys have
                a meaning here: ``space``, a mapping by dotted key, and ``objective``, as in
                :func:`objectives_of`.
            config: The base configuration.

        Raises:
            NfbmrError: It cannot be recorded at all; a server that is merely down is no reason.
        """
        self.config = config
        kind = "sweep" if isinstance(self.paths, SweepPaths) else "ablation"
        self._objectives = objectives_of(plan)
        self._remember()
        tracker = self._tracker = make_tracker(
            config.tracking.model_copy(update={"run_name": f"{kind} {self.paths.name}"}),
            RunPaths(self.paths.root),
            self.paths.name,
            tags={"nfbmr.kind": kind, "nfbmr.plan": self.paths.name, "nfbmr.method": config.method},
        )
        if kind_of(config.tracking) == "mlflow":
            self._uploads = UploadQueue()
        if NOTE not in self._earlier_tags:
            tracker.tags({NOTE: f"This {kind} is going on; its table of results will stand here."})
        space = plan.get("space") or {}
        asked = {name: value for name, value in plan.items() if name not in ("space", "config", "base")}
        tracker.params({f"{kind}.{name}": _text(value) for name, value in asked.items()})
        tracker.params({f"space.{name}": _text(value) for name, value in space.items()})
        tracker.params({name: value for name, value in flat(config).items() if name not in space})
        self._artifact(getattr(self.paths, "plan", None))

    def outcome(self, outcome: TrialResult) -> None:
        """A trial ended: counts, the best so far, and the trial's own record where its worker left it open.

        Args:
            outcome: How; one that was heard of before counts once.
        """
        if self._tracker is None:
            return
        self._look_after(outcome)
        if outcome.state not in _COUNTED or self._states.get(outcome.key) == outcome.state:
            return
        self._states[outcome.key] = outcome.state
        counts = Counter(self._states.values())
        numbers = {f"trials/{state}": float(counts[state]) for state in _COUNTED}
        reached = outcome.numbers()
        for name in self._objectives:
            value = reached.get(name, reached.get(f"validation/{name}"))
            if value is None:
                continue
            maximise, best = self._objectives[name], self._best.get(name, value)
            self._best[name] = max(best, value) if maximise else min(best, value)
            short = name.rpartition("/")[2]
            numbers |= {f"objective/{short}": value, f"best/{short}": self._best[name]}
        self._tracker.metrics(numbers, step=len(self._states))

    def copied(self, task: TrialSpec, outcome: TrialResult) -> None:
        """A trial ended as an earlier one did, without a run: its record is begun and closed here.

        Args:
            task: What would have been run.
            outcome: How it ended; `copy_of` says as which.
        """
        if self._tracker is None:
            return
        if kind_of(self.config.tracking) != "none":
            try:
                record_copy(task, outcome, self._destination())
            except NfbmrError as error:
                log.warning("the record of trial %s cannot be written: %s", task.key, error)
        self.outcome(outcome)

    def end(self, summary: SweepSummary | TableSummary | None, status: Status) -> None:
        """Record the results: tables, pictures, and the table as the description of the run.

        Args:
            summary: Summary of the whole, where it got as far as one. ``summary.json`` becomes an artifact.
            status: ``killed`` for a sweep that can be gone on with.
        """
        tracker, self._tracker = self._tracker, None
        if tracker is None:
            return
        try:
            self._report(tracker, summary)
        except NfbmrError as error:
            log.warning("the record of %s lacks a part: %s", self.paths.name, error)
        finally:
            tracker.finish(status)
            self._deliver()

    def _remember(self) -> None:
        """Read from the folders what an earlier driver knew, and what happened after it was killed."""
        if not (self.paths.journal / FILE).exists():
            return
        record = read_record(self.paths.journal)
        self._earlier_tags = record.tags
        for name in self._objectives:
            points = record.metrics.get(f"best/{name.rpartition('/')[2]}")
            if points:
                self._best[name] = points[-1].value
        ended = []
        for child in children_of(self.paths):
            if child.journal is not None:
                ending = record_of(child.journal)
                if ending.status in _COUNTED:
                    ended.append((ending.ended, child.key, ending.status))
        steps = [point.step for point in record.metrics.get("trials/finished", ())]
        known = max(steps, default=0)
        self._states = {key: state for _, key, state in sorted(ended)[:known]}

    # The trials' own records

    def _look_after(self, outcome: TrialResult) -> None:
        """Close a record that its worker left open, and see to it that it arrives."""
        folder = "trials" if isinstance(self.paths, SweepPaths) else "cells"
        child = Child(outcome.key, RunPaths(self.paths.root / folder / outcome.key))
        if outcome.state == "interrupted" and child.journal is None:
            return  # it never began
        opening = {
            "run_id": child.run_id or f"{self.paths.name}-{outcome.key.replace('/', '-')}",
            "run_name": outcome.key,
            "parent_id": self.paths.name,
            "tags": child_tags(self.paths.name, outcome.key, {}),
            "destination": self._destination(),
        }
        try:
            close_record(child.paths.journal, outcome, opening)
            if self._uploads is not None:
                self._uploads.post(child.paths.journal)
        except NfbmrError as error:
            log.warning("the record of trial %s cannot be closed: %s", outcome.key, error)

    def _destination(self) -> Mapping[str, str] | None:
        if self._uploads is None:
            return None
        return Destination.resolve(self.config.tracking.uri, self.config.tracking.experiment).as_fields()

    def _deliver(self) -> None:
        if self._uploads is None:
            return
        # All of them: the best trial, for one, was gone on with after its outcome was told.
        for folder in (self.paths.journal, *filter(None, (c.journal for c in children_of(self.paths)))):
            self._uploads.post(folder)
        left = self._uploads.close(_PATIENCE)
        reasons = dict.fromkeys(reason for folder in left if (reason := status(folder).problem))
        if left:
            log.warning(
                "%d records of %s are whole on disk but not yet on %s%s; to send them: nfbmr track sync %s",
                len(left),
                self.paths.name,
                (self._destination() or {}).get("uri"),
                "".join(f" ({reason})" for reason in reasons),
                shlex.quote(str(self.paths.root)),
            )

    # The results

    def _report(self, tracker: Tracker, summary: SweepSummary | TableSummary | None) -> None:
        sweep = summary if isinstance(summary, SweepSummary) else None
        # An ablation has drawn its own pictures.
        if isinstance(self.paths, SweepPaths) and self.paths.study.exists():
            if self._draw_summary is not None:
                try:
                    self._draw_summary(sweep)
                except NfbmrError as error:
                    log.warning("the sweep has no pictures: %s", error)
            self._artifact(self.paths.study, tracker)
        table = self.paths.table("md")
        tables = (table, self.paths.table("csv"), self.paths.table("tex"), self.paths.results)
        for path in (*tables, self.paths.summary):
            self._artifact(path, tracker)
        for picture in sorted(self.paths.pictures.glob("*.png")):
            tracker.artifact(picture, "pictures")
        text = table.read_text(encoding="utf-8") if table.exists() else ""
        if isinstance(self.paths, SweepPaths):  # what stands below a sweep's table is in the lead
            text = table_alone(text)
        if not text:
            counts = Counter(self._states.values())
            text = ", ".join(f"{counts[state]} {state}" for state in _COUNTED if counts[state])
        lead, labels = ("", {}) if sweep is None else (_lead(sweep), sweep.labels)
        tracker.tags({NOTE: note_text(lead + (text or "No trial has ended.")), **labels})

    def _artifact(self, path: Path | None, tracker: Tracker | None = None) -> None:
        tracker = tracker or self._tracker
        if path is not None and tracker is not None and path.exists():
            tracker.artifact(path)


def _lead(summary: SweepSummary) -> str:
    """What a sweep found, in a line above its table; nothing where it has found nothing."""
    best = summary.best
    if best is None:
        return ""
    settings = ", ".join(f"{name}={_text(value)}" for name, value in best.params.items())
    sides: tuple[Literal["validation", "test"], ...] = ("validation", "test")
    reached = [f"{side} image AUROC {estimate.value:.3f}" for side in sides if (estimate := best.auroc(side))]
    words = ", ".join([f"trial {best.number:04d} ({settings})", *reached])
    notes = "".join(f"{note}\n\n" for note in summary.notes)
    return f"Chosen: {words}. Trials are the child runs; pictures are under Artifacts.\n\n{notes}"


def table_alone(text: str) -> str:
    """Of a sweep's ``table.md`` the table, without what stands below it."""
    return text.partition("\n\n")[0].rstrip("\n") + "\n" if text else ""


def objectives_of(plan: Mapping[str, Any]) -> dict[str, bool]:
    """Names of the objectives of a plan, each with whether more is better.

    An ablation has a ``metric``: what its cells reach on the test set.

    Example:
        >>> objectives_of({"objective": "validation/image_auroc"})
        {'validation/image_auroc': True}
        >>> objectives_of({"objective": [{"name": "seconds", "direction": "minimize"}]})
        {'seconds': False}
    """
    metric = f"test/{plan['metric']}" if "metric" in plan else _DEFAULT_OBJECTIVE
    given = plan.get("objective") or metric
    if isinstance(given, str | Mapping):
        given = [given]
    objectives = {}
    for objective in given:
        name, direction = (
            (objective, "maximize")
            if isinstance(objective, str)
            else (objective["name"], objective.get("direction"))
        )
        objectives[str(name)] = direction != "minimize"
    return objectives


def _text(value: Any) -> Any:
    """Nested values in one line, as one parameter."""
    return (
        json.dumps(value, default=str, ensure_ascii=False)
        if isinstance(value, Mapping | list | tuple)
        else value
    )
