"""All categories of a data set, one run after the other, and one table of them.

The runs lie in one folder, each in a folder called like its category, beside ``categories.json`` (what is
run) and ``categories.md`` (the table so far). Whoever goes on with that folder reads finished runs, goes on
with those that were interrupted, and begins the rest.
"""

from __future__ import annotations

import logging
import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from nfbmr.config import Config
from nfbmr.data.layouts import categories
from nfbmr.errors import ConfigError, DataError, Interrupted, NfbmrError
from nfbmr.evaluation.summary import Part, RunSummary, Text
from nfbmr.paths import RunPaths, read_json, write_json, write_text
from nfbmr.resolve import dump_yaml, load_config
from nfbmr.run import Run, finished, new_run, open_run
from nfbmr.tables import Grid
from nfbmr.text import count, plural

log = logging.getLogger(__name__)

_ALL = "all"
_METRICS = ("image_auroc", "image_ap", "image_f1", "pixel_auroc", "pixel_aupro")
_PLAN, _CONFIG, _TABLE = "categories.json", "categories.yaml", "categories.md"


@dataclass(frozen=True)
class CategoryRuns:
    """What is run: a configuration on each of some categories.

    Args:
        root: The folder of all runs.
        config: With ``data.category = all``.
        names: The categories, in their order.
    """

    root: Path
    config: Config
    names: tuple[str, ...]

    def run_of(self, name: str) -> Run:
        """The run of a category, which is made where there is none yet."""
        plain = re.sub(r"[^\w-]+", "_", name)  # a category's name need not be one that a folder can have
        folder = self.root / (name if plain == name else f"{self.names.index(name):02d}-{plain}")
        if RunPaths(folder).config.exists():
            return open_run(folder)
        data = self.config.data.model_copy(update={"category": name})
        config = self.config.model_copy(update={"data": data})
        return new_run(config, run_id=f"{self.root.name}-{folder.name}", folder=folder)


def wants_all(config: Config) -> bool:
    """Whether all categories are asked for, and not one that is called so.

    Raises:
        DataError: The data set cannot be read.
    """
    return config.data.category == _ALL and _ALL not in _known(config)


def is_category_runs(folder: Path) -> bool:
    """Whether a folder is that of the runs of all categories."""
    return (folder / _PLAN).exists()


def new_category_runs(config: Config) -> CategoryRuns:
    """Make the folder of the runs of all categories, and write down what is to be run.

    Raises:
        DataError: The data set cannot be read, or has no categories.
    """
    names = _known(config)
    if not names:
        raise DataError(
            "all categories are asked for, and there are none",
            where=config.data.path,
            fix="leave the category out, or point at the folder that holds the categories",
        )
    name = f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{config.method}-{_ALL}-{uuid.uuid4().hex[:4]}"
    root = config.output / name
    write_text(root / _CONFIG, dump_yaml(config))
    write_json(root / _PLAN, {"categories": list(names)})
    return CategoryRuns(root, config, names)


def open_category_runs(folder: Path) -> CategoryRuns:
    """Open the folder of runs that are to be gone on with.

    Raises:
        ConfigError: It is none.
    """
    if not is_category_runs(folder):
        raise ConfigError("not the runs of all categories", where=folder, fix=f"it has no {_PLAN}")
    names = tuple(read_json(folder / _PLAN)["categories"])
    return CategoryRuns(folder, load_config(folder / _CONFIG), names)


class Mean(Part):
    """The mean of a metric over the categories that have it, and how many these are."""

    mean: float
    categories: int


class CategorySummary(Part):
    """What came of the runs of all categories.

    Attributes:
        run_dir: Folder of all runs.
        method: What was trained.
        categories: Each finished run's summary, by category.
        failed: Why the others have none.
        means: Means of each metric, over the categories that have it.
        table: The file with the table.
    """

    run_dir: Text
    method: Text
    categories: dict[Text, RunSummary]
    failed: dict[Text, Text]
    means: dict[Text, Mean]
    table: Text


def train_categories(runs: CategoryRuns, train: Callable[[Run], RunSummary]) -> CategorySummary:
    """Train on each category in turn; one that fails is reported, and the others are run.

    Args:
        runs: Which.
        train: Does a run, or what is left of it, and returns its summary.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; what is done is kept.
    """
    summaries: dict[str, RunSummary] = {}
    failed: dict[str, str] = {}
    for number, name in enumerate(runs.names, 1):
        log.info("category %s (%d of %d)", name, number, len(runs.names))
        try:
            run = runs.run_of(name)
            summaries[name] = finished(run) or train(run)
        except Interrupted as stopped:
            raise Interrupted(
                f"{len(summaries)} of {count(len(runs.names), 'category', 'categories')} "
                f"{plural(len(summaries), 'is', 'are')} finished",
                where=runs.root,
                fix=f"go on with: nfbmr train --resume {runs.root}",
            ) from stopped
        except NfbmrError as error:
            log.warning("category %s failed: %s", name, error)
            failed[name] = str(error)
        write_text(runs.root / _TABLE, table_of(runs.names, summaries, failed))
    return CategorySummary(
        run_dir=str(runs.root),
        method=runs.config.method,
        categories=summaries,
        failed=failed,
        means=means_of(list(summaries.values())),
        table=str(runs.root / _TABLE),
    )


def means_of(summaries: Sequence[RunSummary]) -> dict[str, Mean]:
    """The mean of each metric over those that have it; metrics that none has are left out."""
    means = {}
    for metric in _METRICS:
        values = [
            summary.estimate("test", metric).value
            for summary in summaries
            if summary.estimate("test", metric).defined
        ]
        if values:
            means[metric] = Mean(mean=math.fsum(values) / len(values), categories=len(values))
    return means


def table_of(names: Sequence[str], summaries: Mapping[str, RunSummary], failed: Mapping[str, str]) -> str:
    """A Markdown table: a line a category, then the means; a mean of fewer than all says of how many."""
    finished = list(summaries.values())
    means = means_of(finished)
    columns = [metric for metric in _METRICS if metric in means]
    rows = []
    for name in names:
        if name in summaries:
            estimates = [summaries[name].estimate("test", metric) for metric in columns]
            rows.append([name, *(f"{e.value:.3f}" if e.defined else "" for e in estimates)])
        else:
            state = ["failed" if name in failed else "not run yet", *([""] * len(columns))]
            rows.append([name, *state[: len(columns)]])
    shown = [
        f"{means[m].mean:.3f}" + ("" if means[m].categories == len(names) else f" ({means[m].categories})")
        for m in columns
    ]
    rows.append([f"mean of {len(names)}", *shown])
    return Grid.of(["category", *columns], rows).markdown() + "\n"


def _known(config: Config) -> tuple[str, ...]:
    if config.data.path is None:
        from nfbmr.data.synthesize import CLASSES

        return tuple(CLASSES)
    return categories(config.data.path, config.data.layout)
