"""Cells of a study, and how one is computed.

A cell is a setting on a set with a seed. Cells that differ in scoring alone make a unit: their networks are
fitted once, under the method's default scoring, and each scoring is then chosen anew on the same validation
maps, as ``nfbmr evaluate`` does for a finished run.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.quality.grid import Setting
from benchmarks.quality.rows import Row
from benchmarks.quality.sets import DataSet
from nfbmr.api import configure
from nfbmr.config import Config
from nfbmr.data.samples import digest_of
from nfbmr.environment import code_revision
from nfbmr.errors import ConfigError, Interrupted, NfbmrError
from nfbmr.methods.registry import sharing_key
from nfbmr.stopping import StopRequest

if TYPE_CHECKING:
    from nfbmr.evaluation.intervals import Estimate
    from nfbmr.evaluation.summary import RunSummary
    from nfbmr.results import ScoredImages
    from nfbmr.run import Clock, Trained

FAILED, FINISHED = "failed", "finished"


@dataclass(frozen=True)
class Cell:
    """A setting on a set with a seed; `limit` is of training images, None for all."""

    setting: Setting
    data: DataSet
    seed: int
    limit: int | None = None

    @property
    def key(self) -> str:
        """Equal for cells that ask for the same: what the setting says, whatever it is called."""
        asked = [self.setting.values, self.data.identity, self.seed, self.limit]
        return digest_of([json.dumps(asked, sort_keys=True)])

    @property
    def networks(self) -> dict[str, Any]:
        """The setting without what changes scores alone. Pooling changes the maps that scores are made of."""
        return {
            key: value
            for key, value in self.setting.values.items()
            if key == "scoring.pool" or not key.startswith("scoring.")
        }

    @property
    def about(self) -> dict[str, Any]:
        """What a row says of its cell, be it finished or failed."""
        return {
            "key": self.key,
            "setting": self.setting.name,
            "set": self.data.name,
            "real": self.data.real,
            "seed": self.seed,
            "limit_train": self.limit,
            "values": json.dumps(self.setting.values, sort_keys=True),
        }


@dataclass(frozen=True)
class Unit:
    """Cells that share their fitted networks."""

    cells: tuple[Cell, ...]

    @property
    def first(self) -> Cell:
        """One of them, which says all but the scoring."""
        return self.cells[0]

    @property
    def key(self) -> str:
        """Of the fitted networks, whatever is scored with them."""
        cell = self.first
        asked = [cell.networks, cell.data.identity, cell.seed, cell.limit]
        return digest_of([json.dumps(asked, sort_keys=True)])

    @property
    def kind(self) -> str:
        """Equal for the same networks on any set and seed, which take about as long."""
        return digest_of([json.dumps(self.first.networks, sort_keys=True), str(self.first.limit)])

    @cached_property
    def shares(self) -> frozenset[str]:
        """Features and flows that others compute as well: whoever comes second would only wait."""
        try:
            config = self.config({})
        except ConfigError:
            return frozenset()  # it is said when the unit is run
        features = [config.data.model_dump_json(), config.features.model_dump_json()]
        return frozenset({digest_of(features), sharing_key(config)})

    def config(self, fixed: Mapping[str, Any], cell: Cell | None = None) -> Config:
        """The configuration that is fitted; with `cell`, scored as that one asks.

        Args:
            fixed: Keys of the study: where things go, resamples.
            cell: One of the unit's.
        """
        values = self.first.networks if cell is None else cell.setting.values
        first = self.first
        limit = {} if first.limit is None else {"data.limit_train": first.limit}
        return configure(settings={**fixed, **first.data.values, "seed": first.seed, **limit, **values})


def cells_of(
    settings: Iterable[Setting], sets: Sequence[DataSet], seeds: Sequence[int], limits: Sequence[int] = ()
) -> list[Cell]:
    """Every cell of a study: each setting on each set, and those marked `few` on few images as well."""
    return [
        Cell(setting, data, seed, limit)
        for setting in settings
        for data in sets
        for seed in seeds
        for limit in (None, *(limits if setting.few else ()))
    ]


def units_of(cells: Iterable[Cell]) -> list[Unit]:
    """Cells put together by their networks, set by set, those with the same features beside each other."""
    units: dict[str, list[Cell]] = {}
    for cell in cells:
        units.setdefault(Unit((cell,)).key, []).append(cell)
    together = [Unit(tuple(each)) for each in units.values()]
    sets = list(dict.fromkeys(unit.first.data.name for unit in together))
    return sorted(together, key=lambda unit: (unit.first.limit is not None, sets.index(unit.first.data.name)))


@dataclass(frozen=True)
class Folder:
    """Every path of a study."""

    root: Path

    @property
    def rows(self) -> Path:
        """The table."""
        return self.root / "quality.parquet"

    @property
    def store(self) -> Path:
        """Features and flows."""
        return self.root / "store"

    @property
    def data(self) -> Path:
        """Synthetic sets."""
        return self.root / "data"

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.root / "report"

    def work(self, unit: Unit) -> Path:
        """Folder of what is under way, with its checkpoints."""
        return self.root / "work" / unit.key

    @property
    def scores(self) -> Path:
        """A file of each cell's scores, by its key."""
        return self.root / "scores"

    def scores_of(self, cell: Cell) -> Path:
        """Each image's score, as ``nfbmr train`` writes them: new objectives are tried on these."""
        return self.scores / f"{cell.key}.parquet"


def compute(unit: Unit, folder: Folder, resamples: int) -> list[Row]:
    """A row for each cell of a unit; what goes wrong is a row as well.

    The same steps as ``nfbmr train``, without the audit, the pictures, the report and the tracker.

    Args:
        unit: The cells.
        folder: Of the study.
        resamples: Of the bootstrap, for intervals.

    Raises:
        Interrupted: A signal; what is done of the networks is kept.
    """
    from nfbmr.run import Clock, fit, new_run, score_test
    from nfbmr.run_logger import RunLogger
    from nfbmr.tracking import NoTracker

    work, clock, began = folder.work(unit), Clock(), time.perf_counter()
    fixed = {
        "output": str(folder.root / "work"),
        "store": str(folder.store),
        "features.compute": "fp32",  # nothing may depend on what a stopwatch says on a busy machine
        "features.engine": "torch",
        "evaluation.bootstrap": resamples,
        "evaluation.heatmaps": 0,
        "tracking.kind": "none",
    }
    revision = code_revision()
    rows: list[Row] = []
    try:
        with StopRequest() as stop:
            run = new_run(unit.config(fixed), run_id=unit.key, folder=work)
            trained = fit(run, RunLogger(run.paths, run.config, NoTracker()), clock, stop)
            with clock("test"):
                test, unreadable = score_test(trained, stop)
            shared = time.perf_counter() - began
            for cell in unit.cells:
                try:
                    row = _measured(trained, test, unit.config(fixed, cell), cell, folder, work, clock)
                except NfbmrError as error:
                    row = failure(cell, error)
                rows.append({**row, "unreadable": len(unreadable)})
    except (Interrupted, KeyboardInterrupt):
        raise
    except Exception as error:  # a row says why, and the study goes on
        rows = [failure(cell, error) for cell in unit.cells]
        shared = time.perf_counter() - began
    shutil.rmtree(work, ignore_errors=True)
    about = {
        "networks": unit.kind,
        "unit_seconds": shared,
        "revision": revision["revision"],
        "changed_code": revision["dirty"],
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return [{**row, **about} for row in rows]


def failure(cell: Cell, error: BaseException | str) -> Row:
    """The row of a cell that could not be computed."""
    known = isinstance(error, str | NfbmrError)
    reason = str(error) if known else f"{type(error).__name__}: {error}"
    return {**cell.about, "status": FAILED, "reason": reason}


def _measured(
    trained: Trained, test: ScoredImages, config: Config, cell: Cell, folder: Folder, work: Path, clock: Clock
) -> Row:
    """Choose the scoring on validation data, then measure the test images by it."""
    from nfbmr.evaluation.evaluation import evaluate
    from nfbmr.finalize import Masks, scores_of, summarise
    from nfbmr.methods.fitting import choose_scorer
    from nfbmr.paths import RunPaths
    from nfbmr.results import write_scores

    began = time.perf_counter()
    detector, validation = trained.detector, trained.validation
    detector = replace(detector, config=detector.config.model_copy(update={"scoring": config.scoring}))
    selection = choose_scorer(detector.config, detector.networks, validation.good, validation.defective)
    detector = detector.with_scorer(selection.scorer)
    summary = summarise(RunPaths(work), detector, selection, validation, trained.context, clock.seconds)
    scored = scores_of(test, selection, grouped=bool(trained.context.split["grouped"]))
    pixels = detector.networks.has_pixel_maps
    estimates = evaluate(
        scored,
        selection.scorer.threshold,
        config.evaluation,
        config.seed,
        maps_NHW=selection.scorer.fuse(test.maps_NPHW).numpy() if pixels else None,
        masks=Masks(test) if pixels else None,
    )
    write_scores(
        folder.scores_of(cell), (validation, test), selection.scorer, test_peeked=summary.test_peeked
    )
    return {
        **cell.about,
        "status": FINISHED,
        "reason": None,
        **seen_by_selection(summary, trained.context.history),
        **_numbers("test", estimates),
        "test_best_f1": best_f1(scored.score.tolist(), scored.labels.tolist()),
        **{f"seconds_{phase}": value for phase, value in summary.timings.items()},
        "seconds_scoring": time.perf_counter() - began,
        "seconds_saved": summary.total_saved_seconds,
    }


def seen_by_selection(summary: RunSummary, history: Mapping[str, Sequence[Mapping[str, float]]]) -> Row:
    """What a run's summary says before its test set is read, in columns.

    Whatever number stands in ``selection`` or among the validation metrics becomes a column, so that a new
    objective is compared with the others as soon as summaries have it.

    Args:
        summary: Of the run.
        history: Metrics by stage, an epoch a row.
    """
    selection = summary.selection
    candidates = [candidate.as_json() for candidate in selection.candidates]
    row: dict[str, Any] = {
        "method": summary.method,
        "split": summary.split,
        "dataset_digest": summary.dataset.digest,
        "test_peeked": summary.test_peeked,
        "objective": selection.auroc,
        "threshold": summary.threshold,
        "reduction": selection.reduction,
        "weights": json.dumps(selection.weights),
        "candidates": json.dumps(candidates),
        **_numbers("validation", summary.metrics["validation"]),
        **{
            f"selection_{name}": value
            for name, value in selection.as_json().items()
            if isinstance(value, int | float) and name not in ("auroc", "false_reject_rate")
        },
    }
    for side, kinds in summary.dataset.counts.items():
        row |= {f"images_{side}_{kind}": number for kind, number in kinds.items()}
    row |= _of_candidates(candidates)
    for level in selection.levels:
        row |= {f"level_{level['name']}_{key}": level[key] for key in ("auroc", "share")}
    for stage, epoch in selection.epochs.items():
        kept = next((m for m in history.get(stage, ()) if int(m["epoch"]) == epoch), {})
        row |= {f"epoch_{stage}": epoch, f"epochs_{stage}": len(history.get(stage, ()))}
        row |= {
            f"{stage}_{name}": v
            for name, v in kept.items()
            if name.startswith("validation_") or name == "loss"
        }
    return row


def _of_candidates(candidates: Sequence[Mapping[str, Any]]) -> Row:
    """The best candidate's AUROC, their mean, and the best of each reduction; nothing where levels score."""
    if not candidates:
        return {}
    aurocs = [candidate["auroc"] for candidate in candidates]
    row: dict[str, Any] = {"candidate_best": max(aurocs), "candidate_mean": sum(aurocs) / len(aurocs)}
    for candidate in candidates:
        name = "candidate_" + candidate["reduction"].split()[0]
        row[name] = max(row.get(name, 0.0), candidate["auroc"])
    return row


def _numbers(side: str, estimates: Mapping[str, Estimate]) -> Row:
    """Metrics with their intervals; those of kinds of defect, which differ from set to set, in one column."""
    row: dict[str, Any] = {}
    numbers = {name: estimate.as_json() for name, estimate in estimates.items()}
    for name, ends in numbers.items():
        if "/" not in name:
            row[f"{side}_{name}"] = ends["value"]
            row |= {f"{side}_{name}_{end}": ends[end] for end in ("low", "high")}
    row[f"{side}_kinds"] = json.dumps({name: ends["value"] for name, ends in numbers.items() if "/" in name})
    return row


def best_f1(score_N: Sequence[float], defective_N: Sequence[bool]) -> float | None:
    """The highest F1 that any threshold has on these images; None where one class is missing.

    Args:
        score_N: Higher is more anomalous.
        defective_N: The truth.

    Example:
        >>> best_f1([0.1, 0.4, 0.3, 0.9], [False, False, True, True])
        0.8
    """
    total = sum(defective_N)
    if total in (0, len(defective_N)):
        return None
    best, hits = 0.0, 0
    ordered = sorted(zip(score_N, defective_N, strict=True), reverse=True)
    for i, (score, defective) in enumerate(ordered):
        hits += defective
        if i + 1 == len(ordered) or ordered[i + 1][0] != score:  # equal scores are rejected together
            best = max(best, 2 * hits / (i + 1 + total))
    return best
