"""A run's summary, as people read it on a terminal."""

from __future__ import annotations

from nfbmr.errors import ImageError
from nfbmr.evaluation.intervals import Estimate
from nfbmr.evaluation.summary import RunSummary
from nfbmr.text import chosen_with, count, percentage, visible

_HEADLINE = (
    "image_auroc",
    "image_ap",
    "image_f1",
    "image_precision",
    "image_recall",
    "pixel_auroc",
    "pixel_aupro",
)


def headline(summary: RunSummary) -> str:
    """The numbers that matter, their intervals, and where to look."""
    peeked = "   TEST-PEEKED" if summary.test_peeked else ""
    lines = [
        f"{summary.method} on {summary.dataset.name}, split {summary.split}, seed {summary.seed}{peeked}",
        "",
    ]
    for name in _HEADLINE:
        if summary.estimate("test", name).defined:
            lines.append(f"  {name:<16}{_interval(summary.estimate('test', name))}")
    lines += _false_rejects(summary)
    prefix = "image_auroc/"
    kinds = {
        name.removeprefix(prefix): estimate
        for name, estimate in summary.metrics["test"].items()
        if name.startswith(prefix)
    }
    if len(kinds) > 1:
        lines += ["", "  image_auroc by kind of defect"]
        lines += [f"    {kind:<14}{_interval(estimate)}" for kind, estimate in sorted(kinds.items())]
    known = chosen_with(summary.known_defects)
    lines += [f"  KNOWN     {known}"] if known else []
    lines += [f"  NOTE      {note}" for note in summary.notes]
    if summary.leak:
        lines += ["", f"  LEAK      {summary.leak}"]
    spent = ", ".join(f"{phase} {value:.0f} s" for phase, value in summary.timings.items())
    lines += ["", f"  time      {spent}"]
    lines += [
        f"  report    {summary.report}",
        f"  pictures  {summary.pictures}",
        f"  run       {summary.run_dir}",
    ]
    return "\n".join(lines)


def _false_rejects(summary: RunSummary) -> list[str]:
    """The share of good test images that are rejected, beside the one that was stated."""
    rejected = summary.estimate("test", "image_false_reject_rate")
    if not rejected.defined:
        return []
    selection = summary.selection
    line = f"  {'false rejects':<16}{_interval(rejected)}   {percentage(selection.false_reject_rate)} stated"
    if selection.false_reject_interval is not None:
        low, high = map(percentage, selection.false_reject_interval)
        line += f", {low} to {high} of new good parts to be expected"
    return [line]


def unreadable_images(summary: RunSummary) -> ImageError | None:
    """The error that names the test images that could not be read; None where all could."""
    unreadable = summary.unreadable
    if not unreadable:
        return None
    listed = "".join(f"\n     {visible(name)}: {what}" for name, what in unreadable.items())
    return ImageError(
        f"{count(len(unreadable), 'test image')} could not be read; the others were scored{listed}",
        where=summary.dataset.source,
        fix="repair or remove them, then run again: stored features are used again",
    )


def _interval(estimate: Estimate) -> str:
    if not estimate.defined:
        return "undefined"
    text = f"{estimate.value:6.3f}"
    return f"{text}  [{estimate.low:.3f}, {estimate.high:.3f}]" if estimate.has_interval else text
