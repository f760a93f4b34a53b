"""A run's summary, as people read it on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nfbmr.errors import ImageError
from nfbmr.wording import count, visible

_HEADLINE = (
    "image_auroc",
    "image_ap",
    "image_f1",
    "image_precision",
    "image_recall",
    "pixel_auroc",
    "pixel_aupro",
)


def headline(summary: Mapping[str, Any]) -> str:
    """The numbers that matter, their intervals, and where to look."""
    dataset, peeked = summary["dataset"], "   TEST-PEEKED" if summary["test_peeked"] else ""
    lines = [
        f"{summary['method']} on {dataset['name']}, split {summary['split']}, seed {summary['seed']}{peeked}",
        "",
    ]
    metrics = summary["metrics"]["test"]
    for name in _HEADLINE:
        if metrics.get(name, {}).get("value") is not None:
            lines.append(f"  {name:<16}{_interval(metrics[name])}")
    kinds = {
        name.split("/", 1)[1]: value for name, value in metrics.items() if name.startswith("image_auroc/")
    }
    if len(kinds) > 1:
        lines += ["", "  image_auroc by kind of defect"]
        lines += [f"    {kind:<14}{_interval(value)}" for kind, value in sorted(kinds.items())]
    lines += [f"  NOTE      {note}" for note in summary.get("notes", ())]
    if summary.get("leak"):
        lines += ["", f"  LEAK      {summary['leak']}"]
    seconds = summary["timings"]
    spent = ", ".join(f"{phase} {value:.0f} s" for phase, value in seconds.items())
    lines += ["", f"  time      {spent}"]
    lines += [
        f"  report    {summary['report']}",
        f"  pictures  {summary['pictures']}",
        f"  run       {summary['run_dir']}",
    ]
    return "\n".join(lines)


def unreadable_images(summary: Mapping[str, Any]) -> ImageError | None:
    """The error that names the test images that could not be read; None where all could."""
    unreadable = summary.get("unreadable") or {}
    if not unreadable:
        return None
    listed = "".join(f"\n     {visible(name)}: {what}" for name, what in unreadable.items())
    return ImageError(
        f"{count(len(unreadable), 'test image')} could not be read; the others were scored{listed}",
        where=summary["dataset"]["source"],
        fix="repair or remove them, then run again: stored features are used again",
    )


def _interval(estimate: Mapping[str, float | None]) -> str:
    value, low, high = estimate["value"], estimate["low"], estimate["high"]
    if value is None:
        return "undefined"
    text = f"{value:6.3f}"
    return text if low is None or high is None else f"{text}  [{low:.3f}, {high:.3f}]"
