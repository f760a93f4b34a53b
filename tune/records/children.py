"""The runs of a sweep or an ablation, as records: their names, their folders, and how they ended."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nfbmr import journal
from nfbmr.errors import OutputError
from nfbmr.paths import RunPaths, read_json
from nfbmr.records import Record
from nfbmr.resolve import flat
from nfbmr.trackers import revision_tags
from nfbmr.tracking import FolderTracker, Status
from tune.execution.trial_spec import State, TrialResult, TrialSpec
from tune.records.paths import PlanPaths

STATUS: Mapping[State, Status] = {
    "finished": "finished",
    "pruned": "pruned",
    "failed": "failed",
    "interrupted": "killed",
}
"""What a tracker calls a trial's end."""
_ERROR = "nfbmr.error"
COPY_OF = "nfbmr.copy_of"
"""Label of a trial that was not run: key of the earlier one with its settings."""
# MLflow's pages show it as the description of a run.
NOTE = "mlflow.note.content"
"""The tag that MLflow's pages show as the description of a run."""
_LONGEST_NAME = 120


def child_name(key: str, settings: Mapping[str, Any]) -> str:
    """What people call a trial: its number, and what was searched.

    The section of a setting is left out where its last part says which one is meant.

    Example:
        >>> child_name("0007", {"flow.blocks": 8, "flow.hidden": 256, "features.taps": ["blocks.5"]})
        '0007 blocks=8 hidden=256 taps=blocks.5'
        >>> child_name("0007", {"train.flow.lr": 0.00031623, "train.mapping.lr": 0.001})
        '0007 flow.lr=0.0003162 mapping.lr=0.001'
    """
    shown = (f"{short}={_shown(settings[name])}" for name, short in short_names(settings).items())
    name = " ".join([key, *shown])
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def child_tags(plan: str, key: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Labels by which MLflow's pages sort and filter the runs of a plan.

    Args:
        plan: Name of the sweep or ablation.
        key: Key of the trial or cell.
        settings: What was searched, or what is particular to the cell, by dotted key.

    Example:
        >>> child_tags("tiles", "0007", {"flow.blocks": 8})
        {'nfbmr.plan': 'tiles', 'nfbmr.trial': '0007', 'searched.flow.blocks': '8'}
    """
    searched = {f"searched.{name}": _shown(value) for name, value in settings.items()}
    return {"nfbmr.plan": plan, "nfbmr.trial": key, **searched}


def short_names(names: Mapping[str, Any]) -> dict[str, str]:
    """The shortest ends of dotted names that still tell them apart.

    Example:
        >>> short_names({"flow.blocks": 1, "train.flow.lr": 1, "train.mapping.lr": 1})
        {'flow.blocks': 'blocks', 'train.flow.lr': 'flow.lr', 'train.mapping.lr': 'mapping.lr'}
    """
    short = {}
    for name in names:
        parts = name.split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
        short[name] = next(
            (
                end
                for end in ends
                if not any(other != name and f".{other}".endswith(f".{end}") for other in names)
            ),
            name,
        )
    return short


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "+".join(map(_shown, value))
    return value if isinstance(value, str) else json.dumps(value)


def record_copy(task: TrialSpec, outcome: TrialResult, destination: Mapping[str, str] | None) -> None:
    """The record of a trial that was not run, as an earlier one had its settings.

    It has the settings and the numbers of the result, and the label :data:`COPY_OF`; curves, pictures and the
    model are in the earlier one's.

    Args:
        task: What would have been run.
        outcome: How the earlier one ended, whose key is `copy_of`.
        destination: The tracking server that it is to be sent to.

    Raises:
        OutputError: The folder cannot be written.
    """
    earlier = str(outcome.copy_of)
    tracker = FolderTracker(
        RunPaths(task.folder).journal,
        run_id=task.run_id,
        run_name=task.run_name,
        parent_id=task.parent_id,
        tags={**revision_tags(), **task.tags, "nfbmr.method": task.config.method},
        system_metrics_every=None,
        destination=destination,
    )
    tracker.params(flat(task.config))
    tracker.metrics({name: value for name, value in outcome.numbers().items() if "/" in name})
    note = f"Not run: trial {earlier} had the same settings, so this one ended as that did."
    tags = {COPY_OF: earlier, NOTE: note if outcome.error is None else f"{note} {outcome.error}"}
    tracker.tags(tags | ({} if outcome.error is None else {_ERROR: outcome.error}))
    tracker.finish(STATUS[outcome.state])


@dataclass(frozen=True)
class Child:
    """The folder of one trial or cell.

    Attributes:
        key: Key of its task: ``"0007"``, ``"n=2/bottle/seed-0"``.
    """

    key: str
    paths: RunPaths

    @property
    def run_id(self) -> str | None:
        """What the run is known by; None where it never began."""
        if not self.paths.identity.exists():
            return None
        try:
            return str(read_json(self.paths.identity)["run_id"])
        except (OutputError, KeyError, TypeError):
            return None

    @property
    def journal(self) -> Path | None:
        """Folder of its journal; None where it has none."""
        folder = self.paths.journal
        return folder if (folder / journal.FILE).exists() else None


def children_of(paths: PlanPaths) -> Iterator[Child]:
    """The trials of a sweep, or the cells of an ablation, whose folders hold a run; by key."""
    for top in (paths.root / "trials", paths.root / "cells"):
        for root, folders, files in os.walk(top):
            folder = Path(root)
            run = RunPaths(folder)
            if run.identity.name in files or (run.journal / journal.FILE).exists():
                folders.clear()  # what lies in a run is the run's
                yield Child(folder.relative_to(top).as_posix(), run)
            folders.sort()


def record_of(folder: Path) -> Record:
    """A journal's header: who, when, how it ended; without the numbers, which take the time."""
    record = Record()
    for entry in journal.entries(folder):
        if entry.kind not in ("metrics", "artifact", "dataset", "model"):
            record.add(entry, folder.parent)
    return record


def close_record(folder: Path, outcome: TrialResult, opening: Mapping[str, Any]) -> bool:
    """Close the record of a run whose worker did not get to it, with the end that its outcome says.

    A run that was merely interrupted keeps an end that it has. What was wrong becomes its description.

    Args:
        folder: Folder of the journal.
        outcome: How the run ended.
        opening: The first entry of a record that has to be begun here: run_id, run_name, parent_id, tags and
            destination.

    Returns:
        Whether something was added; False as well while a process is still writing the record.

    Raises:
        OutputError: The folder cannot be written.
    """
    try:
        writer = journal.Journal(folder, exclusive=True)
    except BlockingIOError:
        return False
    try:
        record, last = Record(), None
        for entry in journal.entries(folder):
            last = entry.time
            if entry.kind in ("start", "tags", "finish"):
                record.add(entry, folder.parent)
        status = STATUS[outcome.state]
        ended = record.status == status or (outcome.state == "interrupted" and record.status != "running")
        error_recorded = not outcome.error or record.tags.get(_ERROR) == outcome.error
        if ended and error_recorded:
            return False
        if not record.run_id:
            writer.append("start", **opening)
        if not error_recorded:
            values = {_ERROR: outcome.error, NOTE: f"**{outcome.state}**: {outcome.error}"}
            writer.append("tags", at=last, values=values)
        if not ended:
            writer.append("finish", at=last, status=status)
        return True
    finally:
        writer.close()
