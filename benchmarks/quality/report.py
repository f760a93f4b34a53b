"""From rows to a report: how well what selection sees predicts the test, and what choosing by it costs.

For a set with settings s = 1..S, objective v_s and test image AUROC t_s:

- Spearman's correlation of v and t;
- the regret, ``max_s t_s - t_pick``, where the pick has the highest v. Of several settings with the same
  highest v the mean t is taken, since nothing tells them apart.

Both are computed for each seed and averaged. Settings on few images are no part of it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.quality import figures
from benchmarks.quality.agreements import AGREEMENT, with_agreement
from benchmarks.quality.cells import FINISHED
from benchmarks.quality.differences import BASE, Compared, differences
from benchmarks.quality.rows import Row
from nfbmr.evaluation.intervals import Estimate
from nfbmr.paths import write_text

OBJECTIVE, TEST = "objective", "test_image_auroc"
SEEN = (
    AGREEMENT,
    "validation_",
    "selection_",
    "candidate_",
    "flow_validation_",
    "mapping_validation_",
    "statistics_",
)
"""Columns that begin so are known before the test set is read: each is tried as an objective."""
NOT_TRIED = ("_low", "_high", "_kinds", "false_reject_rate")
FEWEST = 4
"""Settings of a set below which nothing but today's objective is compared."""
DEFAULTS = ("default", "default-patchcore")
SHOWN = {
    TEST: "image AUROC",
    "test_pixel_auroc": "pixel AUROC",
    "test_pixel_aupro": "AUPRO",
    "test_image_recall": "recall",
    "test_image_false_reject_rate": "false rejects",
    "test_image_f1": "F1",
    "test_best_f1": "best F1",
}
"""Columns of the table of settings, in percent."""


@dataclass(frozen=True)
class Choice:
    """What choosing by an objective gives on a set, averaged over seeds.

    Attributes:
        correlation: Spearman's; None where it is not defined.
        regret: In points of image AUROC.
        settings: How many were compared.
        picks: Settings that the objective picks; several where they tie or seeds differ.
        picked: Their mean test image AUROC.
        best: The highest test image AUROC of the grid.
        bests: Settings that reach it.
    """

    correlation: float | None
    regret: float
    settings: int
    picks: tuple[str, ...]
    picked: float
    best: float
    bests: tuple[str, ...]


def is_loss(column: str) -> bool:
    """Whether less is better."""
    return "loss" in column


def objectives_in(rows: Iterable[Row]) -> list[str]:
    """Columns to try as objectives: today's first, then in alphabetical order."""
    numeric = {
        name
        for row in rows
        for name, value in row.items()
        if isinstance(value, float) and name.startswith(SEEN) and not name.endswith(NOT_TRIED)
    }
    return [OBJECTIVE, *sorted(numeric - {OBJECTIVE})]


def compared(rows: Iterable[Row]) -> list[Row]:
    """Finished rows of all training images, whose test AUROC is defined."""
    return [
        row
        for row in rows
        if row["status"] == FINISHED and row.get("limit_train") is None and row.get(TEST) is not None
    ]


def choice_by(column: str, rows: Sequence[Row]) -> Choice | None:
    """Choose among the rows of one set by a column; None where fewer than two rows have it."""
    by_seed = defaultdict(list)
    for row in rows:
        if row.get(column) is not None:
            by_seed[row["seed"]].append(row)
    chosen = [_of_a_seed(column, own, rows) for seed, own in sorted(by_seed.items()) if len(own) > 1]
    if not chosen:
        return None
    correlations = [one.correlation for one in chosen if one.correlation is not None]
    return Choice(
        mean(correlations) if correlations else None,
        mean(one.regret for one in chosen),
        max(one.settings for one in chosen),
        tuple(dict.fromkeys(name for one in chosen for name in one.picks)),
        mean(one.picked for one in chosen),
        mean(one.best for one in chosen),
        tuple(dict.fromkeys(name for one in chosen for name in one.bests)),
    )


def _of_a_seed(column: str, rows: Sequence[Row], everything: Sequence[Row]) -> Choice:
    sign = -1.0 if is_loss(column) else 1.0
    seen = [sign * float(row[column]) for row in rows]
    test = [float(row[TEST]) for row in rows]
    # The best of the whole grid: an objective that does not know some settings cannot pick them.
    rivals = [row for row in everything if row["seed"] == rows[0]["seed"]]
    best = max(float(row[TEST]) for row in rivals)
    picks = [i for i, value in enumerate(seen) if value == max(seen)]
    picked = mean(test[i] for i in picks)
    return Choice(
        spearman(seen, test),
        100 * (best - picked),
        len(rows),
        tuple(str(rows[i]["setting"]) for i in picks),
        picked,
        best,
        tuple(str(row["setting"]) for row in rivals if row[TEST] == best),
    )


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties by their mean rank; None where one side does not vary.

    Example:
        >>> spearman([1, 2, 3], [10, 30, 20])
        0.5
    """
    from scipy.stats import spearmanr

    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return round(float(spearmanr(x, y).statistic), 6)


def write_report(rows: Sequence[Row], folder: Path, scores: Path) -> Path:
    """Write ``report.md`` and its pictures.

    Args:
        rows: Of a study; it need not be finished.
        folder: Where the report goes.
        scores: The study's folder of scores.

    Returns:
        The Markdown file.
    """
    main = with_agreement(compared(rows), scores)
    by_set: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(main, key=lambda row: (not row["real"], row["set"])):
        by_set[row["set"]].append(row)
    real = [name for name, own in by_set.items() if own[0]["real"]] or list(by_set)
    today = {name: choice_by(OBJECTIVE, own) for name, own in by_set.items()}
    pictures = figures.draw(by_set, today, few_of(rows), folder)
    text = "\n\n".join(
        part
        for part in (
            "# Validation against test",
            _head(rows, by_set, real),
            "\n\n".join(f"![{path.stem}]({path.name})" for path in pictures),
            "## What selection sees\n\n" + table_of_objectives(by_set, real),
            "## Each set\n\n" + table_of_sets(by_set, today),
            "## Each setting\n\n" + table_of_settings(by_set, real),
            _beside_the_default(differences(main, scores)),
            _few(rows),
            _failures(rows),
        )
        if part
    )
    path = folder / "report.md"
    write_text(path, text + "\n")
    return path


def _head(rows: Sequence[Row], by_set: Mapping[str, Sequence[Row]], real: Sequence[str]) -> str:
    finished = sum(row["status"] == FINISHED for row in rows)
    synthetic = "" if not by_set or by_set[real[0]][0]["real"] else " (there are no real ones: over all)"
    lines = [
        f"{finished} cells are finished, {len(rows) - finished} failed.",
        f"Averages are over the real sets{synthetic}: {', '.join(real) or 'none'}.",
        "The best of the grid is known from test scores alone (test-peeked); the pick is not.",
    ]
    revisions = sorted({str(row.get("revision"))[:10] for row in rows if row.get("revision")})
    if len(revisions) > 1:
        lines.append(f"**Rows come from several revisions of the code: {', '.join(revisions)}.**")
    if any(row.get("test_peeked") for row in rows):
        lines.append("**Some rows are test-peeked: their test set chose something.**")
    return "\n".join(lines)


def table_of_objectives(by_set: Mapping[str, Sequence[Row]], real: Sequence[str]) -> str:
    """A row an objective: Spearman's correlation and the regret on each set, their averages and the worst."""
    heads = [
        "objective",
        "mean ρ",
        "lowest ρ",
        "mean regret",
        "worst regret",
        *(f"{s}: ρ, regret" for s in by_set),
    ]
    lines = []
    for column in objectives_in(row for own in by_set.values() for row in own):
        choices = {name: choice_by(column, own) for name, own in by_set.items()}
        if column != OBJECTIVE:  # two settings are ranked rightly by chance every other time
            choices = {
                name: c if c is not None and c.settings >= FEWEST else None for name, c in choices.items()
            }
        known = [choice for name in real if (choice := choices[name]) is not None]
        if not known:
            continue
        rho = [choice.correlation for choice in known if choice.correlation is not None]
        regret = [choice.regret for choice in known]
        name = f"**{column}**" if column == OBJECTIVE else column
        missing = "" if len(known) == len(real) else f" ({len(known)} of {len(real)} sets)"
        lines.append(
            [
                f"{name}{', less is better' if is_loss(column) else ''}{missing}",
                _number(mean(rho) if rho else None, 2),
                _number(min(rho) if rho else None, 2),
                _number(mean(regret), 1),
                _number(max(regret), 1),
                *(
                    "" if choice is None else f"{_number(choice.correlation, 2)}, {choice.regret:.1f}"
                    for choice in choices.values()
                ),
            ]
        )
    first, rest = lines[:1], sorted(lines[1:], key=lambda line: -_value(line[1]))
    return markdown(heads, [*first, *rest])


def table_of_sets(by_set: Mapping[str, Sequence[Row]], today: Mapping[str, Choice | None]) -> str:
    """A row a set: what today's objective picks, the best, and the two default settings."""
    peeked = "best (test-peeked)"
    heads = ["set", "settings", "ρ", "pick", "its AUROC", peeked, "its AUROC", "regret", *DEFAULTS]
    lines = []
    for name, own in by_set.items():
        choice = today[name]
        if choice is None:
            continue
        defaults = [_mean(own, TEST, setting) for setting in DEFAULTS]
        lines.append(
            [
                name,
                str(choice.settings),
                _number(choice.correlation, 2),
                _names(choice.picks),
                _percent(choice.picked),
                _names(choice.bests),
                _percent(choice.best),
                f"{choice.regret:.1f}",
                *map(_percent, defaults),
            ]
        )
    return markdown(heads, lines)


def table_of_settings(by_set: Mapping[str, Sequence[Row]], real: Sequence[str]) -> str:
    """A row a setting, best first: means over the real sets, then the image AUROC on each set."""
    heads = ["setting", "sets", "objective", *SHOWN.values(), "seconds", *by_set]
    settings = list(dict.fromkeys(str(row["setting"]) for own in by_set.values() for row in own))
    lines = []
    for setting in settings:
        # Means over those sets that have it: the second column says how many.
        have = [name for name in real if _mean(by_set[name], TEST, setting) is not None]
        means = [
            _mean_of(_mean(by_set[name], column, setting) for name in have)
            for column in (OBJECTIVE, *SHOWN, "unit_seconds")
        ]
        each = [_percent(_mean(own, TEST, setting)) for own in by_set.values()]
        shown = [*map(_percent, means[:-1]), _number(means[-1], 0)]
        order = (-len(have), -(means[1] or 0.0))
        lines.append((order, [setting, str(len(have)), *shown, *each]))
    return markdown(heads, [line for _, line in sorted(lines, key=lambda line: line[0])])


def _beside_the_default(compared: Mapping[str, Compared]) -> str:
    if not compared:
        return ""
    sets = list(dict.fromkeys(name for one in compared.values() for name in one.sets))
    lines = [
        [setting, str(len(one.sets)), _points(one.mean), *(_points(one.sets.get(name)) for name in sets)]
        for setting, one in compared.items()
    ]
    head = (
        f"## Beside `{BASE}`\n\nPaired differences of the test image AUROC in points, with 95 % intervals; "
        "the mean is over all sets that both have, real or not.\n\n"
    )
    return head + markdown(["setting", "sets", "mean", *sets], lines)


def few_of(rows: Iterable[Row]) -> dict[str, dict[str, dict[float, float]]]:
    """Test image AUROC by set, setting and number of training images (validation ones not counted)."""
    finished = [row for row in rows if row["status"] == FINISHED and row.get(TEST) is not None]
    tried = {(row["set"], row["setting"]) for row in finished if row.get("limit_train") is not None}
    found: dict[str, dict[str, dict[float, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for row in finished:
        if (row["set"], row["setting"]) in tried:
            images = float(row.get("limit_train") or row["images_train_good"])
            found[row["set"]][row["setting"]][images].append(float(row[TEST]))
    return {
        name: {s: {n: mean(v) for n, v in sorted(each.items())} for s, each in settings.items()}
        for name, settings in found.items()
    }


def _few(rows: Sequence[Row]) -> str:
    few = few_of(rows)
    if not few:
        return ""
    numbers = sorted({n for settings in few.values() for each in settings.values() for n in each})
    heads = ["set", "setting", *(f"{n:.0f} images" for n in numbers)]
    lines = [
        [name, setting, *(_percent(each.get(n)) for n in numbers)]
        for name, settings in few.items()
        for setting, each in settings.items()
    ]
    return "## Few images\n\nTest image AUROC by the number of training images.\n\n" + markdown(heads, lines)


def _failures(rows: Sequence[Row]) -> str:
    failed = [row for row in rows if row["status"] != FINISHED]
    if not failed:
        return ""
    lines = [
        [row["setting"], row["set"], f"{row['seed']:.0f}", " ".join(str(row["reason"]).split())]
        for row in failed
    ]
    return "## Failed\n\n" + markdown(["setting", "set", "seed", "reason"], lines)


def markdown(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [list(heads), ["---"] * len(heads), *map(list, lines)]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows)


def _mean(rows: Iterable[Row], column: str, setting: str) -> float | None:
    return _mean_of(row.get(column) for row in rows if row["setting"] == setting)


def _mean_of(values: Iterable[Any]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return mean(known) if known else None


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _points(difference: Estimate | None) -> str:
    if difference is None or not difference.defined:
        return ""
    value, low, high = (100 * number for number in (difference.value, difference.low, difference.high))
    return f"{value:+.1f} [{low:.1f}, {high:.1f}]"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _value(text: str) -> float:
    return float(text) if text else -math.inf
