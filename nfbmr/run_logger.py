"""What a tracker is told of a run, and when."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from nfbmr.config import Config
from nfbmr.data.samples import Dataset, Split
from nfbmr.evaluation.evaluation import TITLES
from nfbmr.evaluation.summary import RunSummary
from nfbmr.journal import entries
from nfbmr.paths import RunPaths
from nfbmr.resolve import flat
from nfbmr.results import kinds_of, side_counts
from nfbmr.tables import Grid
from nfbmr.text import chosen_with, count, visible
from nfbmr.tracking import Tracker

log = logging.getLogger(__name__)

_SIDES = {"test": "test images", "validation": "validation images with synthetic defects"}


@dataclass(frozen=True)
class RunLogger:
    """Tells a tracker of a run: how it begins, each epoch, how it ends.

    A run that goes on tells of epochs again, of a stage that is in the store by now or that is trained again
    from its last checkpoint. What its journal has of them is not recorded a second time.
    """

    paths: RunPaths
    config: Config
    tracker: Tracker

    @cached_property
    def _recorded(self) -> Mapping[tuple[str, int], float]:
        """What earlier attempts have recorded: the last value by metric and step."""
        return {
            (name, entry.fields["step"]): float(value)
            for entry in entries(self.paths.journal)
            if entry.kind == "metrics"
            for name, value in entry.fields["values"].items()
        }

    def begin(self, dataset: Dataset, split: Split, digest: str) -> None:
        """Settings, labels, the data set and who is on which side of its split."""
        sides = {"train": split.train, "validation": split.held_out, "test": split.test}
        counts = {side: side_counts(samples) for side, samples in sides.items()}
        sizes = "; ".join(
            f"{side} {' and '.join(f'{number} {kind}' for kind, number in kinds.items() if number) or 'none'}"
            for side, kinds in counts.items()
        )
        log.info("%s, split %s, seed %d: %s", dataset.name, split.name, split.seed, sizes)
        shared = {s.group for s in (*split.train, *split.held_out)} & {s.group for s in split.test} - {None}
        if shared:
            log.warning(
                "the split leaks: %d groups stand on both sides; split=group keeps them apart", len(shared)
            )
        self.tracker.params(flat(self.config))
        tags = {
            "nfbmr.method": self.config.method,
            "nfbmr.split": split.name,
            "nfbmr.split_digest": split.digest,
            "nfbmr.test_peeked": str(self.config.selection.on == "test").lower(),
        }
        if split.known:
            log.info("%s", chosen_with(kinds_of(split.known)))
            tags["nfbmr.known_defects"] = str(len(split.known))
        self.tracker.tags(tags)
        flat_counts = {
            f"{side}_{kind}": n for side, kinds in counts.items() for kind, n in kinds.items() if n
        }
        self.tracker.dataset(dataset.name, digest, split.name, str(dataset.root), flat_counts)
        for path in (self.paths.config, self.paths.split, self.paths.environment):
            self.tracker.artifact(path)

    def epoch(self, stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """An epoch's metrics, with the epoch as their step; those that were validated are logged as well.

        What is recorded already stays: the same numbers, and the seconds of an epoch that is trained again.
        Other numbers, as settings or images have changed, are recorded.
        """
        names = ("loss", "validation_loss", "validation_auroc")
        if "validation_auroc" in metrics:
            words = [f"{name.replace('_', ' ')} {metrics[name]:.4f}" for name in names if name in metrics]
            log.info("stage %s, epoch %d: %s", stage, epoch, ", ".join(words))
        values = {f"{stage}/{name}": value for name, value in metrics.items() if name != "epoch"}
        values = {name: value for name, value in values.items() if not self._is_recorded(name, epoch, value)}
        if values:
            self.tracker.metrics(values, step=epoch)

    def _is_recorded(self, name: str, step: int, value: float) -> bool:
        before = self._recorded.get((name, step))
        return before is not None and (before == value or name.endswith("seconds"))

    def end(self, summary: RunSummary) -> None:
        """Results, report, pictures and the model; losses went out as they were made."""
        numbers = {n: value for n, value in _numbers(summary) if self._recorded.get((n, 0)) != value}
        if numbers:
            self.tracker.metrics(numbers)
        self.tracker.tags({"nfbmr.description": description(summary)})
        paths = self.paths
        for path in (paths.report, paths.summary, paths.fitted, paths.scores, paths.history):
            if path.exists():  # a run that ends before the test set has no report
                self.tracker.artifact(path)
        for picture in sorted(self.paths.pictures.glob("*.png")):
            self.tracker.artifact(picture, "pictures")
        if self.config.tracking.log_model:
            self.tracker.model(self.paths.model)


def description(summary: RunSummary) -> str:
    """A run in a few lines of Markdown: what it is, how well it does, and where to look further."""
    known = summary.known_defects
    sides = {side: words for side, words in _SIDES.items() if side in summary.metrics}
    if known and "validation" in sides:
        sides["validation"] += f" and {count(sum(known.values()), 'known one')}"
    reached = [
        f"**{summary.estimate(side)}** on {words}"
        for side, words in sides.items()
        if summary.estimate(side).defined
    ]
    peeked = "; **test-peeked**: the test set chose something" if summary.test_peeked else ""
    lines = [
        f"Image AUROC {', '.join(reached) or 'not measured'}{peeked}",
        "",
        f"{summary.method} on {visible(summary.dataset.name)}, split {summary.split}, seed {summary.seed}",
        "",
    ]
    rows = []
    for name, title in TITLES.items():
        estimates = [summary.estimate(side, name) for side in sides]
        if any(estimate.defined for estimate in estimates):
            cells = [str(estimate) if estimate.defined else "" for estimate in estimates]
            rows.append([title, *cells])
    lines.append(Grid.of(["", *sides.values()], rows).markdown())
    notes = (summary.leak, chosen_with(known), *summary.notes)
    lines += ["", *(f"{visible(note)}\n" for note in notes if note)]
    lines.append(f"In square brackets: {summary.confidence:.0%} intervals.")
    if summary.tested:
        lines.append(
            "Under Artifacts: `report.html` is the whole report, `pictures` its curves and heat maps."
        )
    else:
        lines.append("The test set was not looked at.")
    return "\n".join(lines)


def _numbers(summary: RunSummary) -> Iterator[tuple[str, float]]:
    """``test/image_auroc``, ``test/image_auroc_low``, ..., ``seconds/flow``; undefined ones left out."""
    for side, metrics in summary.metrics.items():
        for name, estimate in metrics.items():
            ends = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
            yield from (
                (f"{side}/{name}{end}", value) for end, value in ends.items() if not math.isnan(value)
            )
    for phase, seconds in summary.timings.items():
        yield f"seconds/{phase}", seconds
