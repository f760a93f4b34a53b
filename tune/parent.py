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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow_server.choice import choose, kind_of
from mlflow_server.courier import Courier
from mlflow_server.destination import Destination
from mlflow_server.naming import note_text
from nfbmr.config import Config
from nfbmr.errors import NfbmrError
from nfbmr.journal import FILE
from nfbmr.nesting import flatten
from nfbmr.paths import RunPaths
from nfbmr.records import read_record
from nfbmr.resolve import flat
from nfbmr.tracking import Status, Tracker
from tune.children import NOTE, Child, child_tags, children_of, record_of, settle
from tune.paths import PlanPaths, SweepPaths
from tune.tasks import Outcome

log = logging.getLogger(__name__)

DEFAULT_OBJECTIVE = "validation/image_auroc"
COUNTED = ("finished", "pruned", "failed")
PATIENCE = 15.0


class ParentRecord:
    """Records a sweep or an ablation, and sees to it that its trials' records are whole and arrive.

    Args:
        paths: Of the sweep or ablation; its name is the ``run_id``.
        config: The base configuration; its ``tracking`` says where to.

    Example:
        >>> import tempfile
        >>> from nfbmr.config import TrackingConfig
        >>> config = Config(tracking=TrackingConfig(kind="folder"))
        >>> paths = SweepPaths(Path(tempfile.mkdtemp()) / "tiles")
        >>> parent = ParentRecord(paths, config)
        >>> parent.begin({"space": {"flow.blocks": [2, 4, 8]}, "sampler": "tpe"}, config)
        >>> parent.outcome(Outcome("0000", "failed", error="a loss that is not finite"))
        >>> parent.end({"trials": 1}, "finished")
        >>> record = read_record(paths.journal)
        >>> record.params["space.flow.blocks"], record.metrics["trials/failed"][-1].value
        ('[2, 4, 8]', 1.0)
    """

    def __init__(self, paths: PlanPaths, config: Config) -> None:
        self.paths = paths
        self.config = config
        self._tracker: Tracker | None = None
        self._courier: Courier | None = None
        self._states: dict[str, str] = {}
        self._objectives: dict[str, bool] = {}
        self._best: dict[str, float] = {}
        self._told: Mapping[str, str] = {}

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
        tracker = self._tracker = choose(
            config.tracking.model_copy(update={"run_name": f"{kind} {self.paths.name}"}),
            RunPaths(self.paths.root),
            self.paths.name,
            tags={"nfbmr.kind": kind, "nfbmr.plan": self.paths.name, "nfbmr.method": config.method},
        )
        if kind_of(config.tracking) == "mlflow":
            self._courier = Courier()
        if NOTE not in self._told:
            tracker.tags({NOTE: f"This {kind} is going on; its table of results will stand here."})
        space = plan.get("space") or {}
        asked = {name: value for name, value in plan.items() if name not in ("space", "config", "base")}
        tracker.params({f"{kind}.{name}": _text(value) for name, value in asked.items()})
        tracker.params({f"space.{name}": _text(value) for name, value in space.items()})
        tracker.params({name: value for name, value in flat(config).items() if name not in space})
        self._artifact(getattr(self.paths, "plan", None))

    def outcome(self, outcome: Outcome) -> None:
        """A trial ended: counts, the best so far, and the trial's own record where its worker left it open.

        Args:
            outcome: How; one that was heard of before counts once.
        """
        if self._tracker is None:
            return
        self._look_after(outcome)
        if outcome.state not in COUNTED or self._states.get(outcome.key) == outcome.state:
            return
        self._states[outcome.key] = outcome.state
        counts = Counter(self._states.values())
        numbers = {f"trials/{state}": float(counts[state]) for state in COUNTED}
        values = self._values(outcome.summary or {})
        for name, value in values.items():
            maximise, best = self._objectives[name], self._best.get(name, value)
            self._best[name] = max(best, value) if maximise else min(best, value)
            short = name.rpartition("/")[2]
            numbers |= {f"objective/{short}": value, f"best/{short}": self._best[name]}
        self._tracker.metrics(numbers, step=len(self._states))

    def end(self, summary: Mapping[str, Any], status: Status) -> None:
        """Record the results: tables, pictures, and the table as the description of the run.

        Args:
            summary: What ``--json`` prints; ``summary.json``, where it is written, becomes an artifact.
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
        self._told = record.tags
        for name in self._objectives:
            points = record.metrics.get(f"best/{name.rpartition('/')[2]}")
            if points:
                self._best[name] = points[-1].value
        ended = []
        for child in children_of(self.paths):
            if child.journal is not None:
                own = record_of(child.journal)
                if own.status in COUNTED:
                    ended.append((own.ended, child.key, own.status))
        steps = [point.step for point in record.metrics.get("trials/finished", ())]
        known = max(steps, default=0)
        self._states = {key: state for _, key, state in sorted(ended)[:known]}

    # The trials' own records

    def _look_after(self, outcome: Outcome) -> None:
        """Close a record that its worker left open, and see to it that it arrives."""
        child = self._child(outcome.key)
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
            settle(child.paths.journal, outcome, opening)
            if self._courier is not None:
                self._courier.post(child.paths.journal)
        except NfbmrError as error:
            log.warning("the record of trial %s cannot be closed: %s", outcome.key, error)

    def _destination(self) -> Mapping[str, str] | None:
        if self._courier is None:
            return None
        return Destination.resolve(self.config.tracking.uri, self.config.tracking.experiment).as_fields()

    def _child(self, key: str) -> Child:
        part = "trials" if isinstance(self.paths, SweepPaths) else "cells"
        return Child(key, RunPaths(self.paths.root / part / key))

    def _deliver(self) -> None:
        if self._courier is None:
            return
        # All of them: the best trial, for one, was gone on with after its outcome was told.
        for folder in (self.paths.journal, *filter(None, (c.journal for c in children_of(self.paths)))):
            self._courier.post(folder)
        left = self._courier.close(PATIENCE)
        if left:
            log.warning(
                "%d records of %s are whole on disk but not yet on %s; to send them: nfbmr track sync %s",
                len(left),
                self.paths.name,
                (self._destination() or {}).get("uri"),
                shlex.quote(str(self.paths.root)),
            )

    # The results

    def _report(self, tracker: Tracker, summary: Mapping[str, Any]) -> None:
        self._draw(tracker)
        table = self.paths.table("md")
        for path in (table, self.paths.table("csv"), self.paths.table("tex"), self.paths.summary):
            self._artifact(path, tracker)
        for picture in sorted(self.paths.pictures.glob("*.png")):
            tracker.artifact(picture, "pictures")
        text = table.read_text(encoding="utf-8") if table.exists() else ""
        if not text:
            counts = Counter(self._states.values())
            text = ", ".join(f"{counts[state]} {state}" for state in COUNTED if counts[state])
        tracker.tags({NOTE: note_text(_lead(summary) + (text or "No trial has ended."))})

    def _draw(self, tracker: Tracker) -> None:
        """Optuna's pictures and journal; an ablation has drawn its own."""
        if not isinstance(self.paths, SweepPaths) or not self.paths.study.exists():
            return
        from tune.plots import draw_study

        try:
            draw_study(self.paths, list(self._objectives))
        except NfbmrError as error:
            log.warning("the sweep has no pictures: %s", error)
        self._artifact(self.paths.study, tracker)

    def _artifact(self, path: Path | None, tracker: Tracker | None = None) -> None:
        tracker = tracker or self._tracker
        if path is not None and tracker is not None and path.exists():
            tracker.artifact(path)

    def _values(self, summary: Mapping[str, Any]) -> dict[str, float]:
        """What the trial reached, by objective."""
        numbers = numbers_of(summary)
        found = {name: numbers.get(name, numbers.get(f"validation/{name}")) for name in self._objectives}
        return {name: value for name, value in found.items() if value is not None}


def _lead(summary: Mapping[str, Any]) -> str:
    """What a sweep found, in a line above its table; nothing where it has found nothing."""
    best = summary.get("best")
    if not best:
        return ""
    settings = ", ".join(f"{name}={_text(value)}" for name, value in best["params"].items())
    reached = [
        f"{side} image AUROC {estimate['value']:.3f}"
        for side in ("validation", "test")
        if (estimate := (best.get(side) or {}).get("image_auroc")) and estimate["value"] is not None
    ]
    words = ", ".join([f"trial {best['number']:04d} ({settings})", *reached])
    return f"Best: {words}. Trials are the child runs; pictures are under Artifacts.\n\n"


def objectives_of(plan: Mapping[str, Any]) -> dict[str, bool]:
    """Names of the objectives of a plan, each with whether more is better.

    An ablation has a ``metric``: what its cells reach on the test set.

    Example:
        >>> objectives_of({"objective": "validation/image_auroc"})
        {'validation/image_auroc': True}
        >>> objectives_of({"objective": [{"name": "seconds", "direction": "minimize"}]})
        {'seconds': False}
    """
    metric = f"test/{plan['metric']}" if "metric" in plan else DEFAULT_OBJECTIVE
    given = plan.get("objective") or metric
    if isinstance(given, str | Mapping):
        given = [given]
    objectives = {}
    for one in given:
        name, direction = (one, "maximize") if isinstance(one, str) else (one["name"], one.get("direction"))
        objectives[str(name)] = direction != "minimize"
    return objectives


def numbers_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a run's summary: metrics as ``validation/image_auroc``, the others with dots.

    Example:
        >>> numbers_of({"metrics": {"test": {"f1": {"value": 0.5, "low": None}}}, "timings": {"flow": 2.0}})
        {'test/f1': 0.5, 'timings.flow': 2.0}
    """
    metrics = summary.get("metrics") or {}
    numbers = {
        f"{side}/{name}": estimate["value"]
        for side, estimates in metrics.items()
        for name, estimate in estimates.items()
    }
    rest = flatten({name: value for name, value in summary.items() if name != "metrics"})
    return {
        name: float(value)
        for name, value in (numbers | rest).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _text(value: Any) -> Any:
    """Nested values in one line, as one parameter."""
    return (
        json.dumps(value, default=str, ensure_ascii=False)
        if isinstance(value, Mapping | list | tuple)
        else value
    )
