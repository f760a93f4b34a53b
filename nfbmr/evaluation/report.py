"""A run's report: one HTML file that opens without a network, on a phone as well as on a large screen."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from nfbmr.evaluation.evaluation import TITLES
from nfbmr.evaluation.intervals import UNDEFINED, Estimate
from nfbmr.evaluation.summary import RunSummary
from nfbmr.nesting import flatten
from nfbmr.paths import write_text
from nfbmr.text import chosen_with, percentage, visible

_KINDS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".svg": "svg+xml", ".gif": "gif", ".webp": "webp"}

_MOST_REGIONS = 3


def write_report(
    summary: RunSummary,
    pictures: Sequence[tuple[str, Path, str]],
    path: Path,
    regions: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the report of a run.

    Everything in it is escaped, pictures are embedded, and the page forbids itself any request, so that it
    may be mailed around and opened anywhere.

    Args:
        summary: The run's.
        pictures: Title, file and caption of each; a file that is missing is said to be.
        path: The file to write.
        regions: Regions of images that the pictures show: ``sort``, ``name``, ``defect``, ``relative_score``,
            ``regions`` and ``peak`` of each.

    Raises:
        OutputError: The disk is full or the folder cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_shown, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        duration=duration, percent=lambda x: f"{x:g}", number=number, part=part_title, percentage=percentage
    )
    source = resources.files("nfbmr.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    template = environment.from_string(source)
    highest = [  # of each image, and how many more there are
        {**row, "regions": row["regions"][:_MOST_REGIONS], "more": len(row["regions"][_MOST_REGIONS:])}
        for row in regions
    ]
    write_text(path, template.render({**_view(summary, pictures), "regions": highest}))


@dataclass(frozen=True)
class Row:
    """A metric in a table.

    Attributes:
        title: What people call it.
        test: Its estimate on test images.
        validation: The same on validation images, None where it was not measured.
    """

    title: str
    test: Estimate
    validation: Estimate | None


@dataclass(frozen=True)
class Kind:
    """A kind of defect in a table: how many test images show it, and how well it is found."""

    name: str
    count: int | None
    auroc: Estimate
    recall: Estimate


@dataclass(frozen=True)
class Embedded:
    """A picture, with its bytes as a ``data:`` address; None where the file could not be read."""

    title: str
    caption: str
    address: str | None
    wide: bool


def _shown(value: Any) -> Any:
    """Text with every character to be seen; anything else, markup among it, as it is."""
    return visible(value) if type(value) is str else value


def duration(seconds: float) -> str:
    """Seconds as people say them.

    Example:
        >>> duration(0.04), duration(75.2), duration(7300)
        ('0.04 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def part_title(name: str) -> str:
    """What people call a score component.

    Example:
        >>> part_title("norm"), part_title("level 2")
        ('‖z‖²', 'level 2')
    """
    return {"source": "source error", "target": "target error", "norm": "‖z‖²"}.get(name, name)


def number(value: Any) -> str:
    """A number to four digits, anything else as it is.

    Example:
        >>> number(3.14159), number(12), number(None)
        ('3.142', '12', 'none')
    """
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _view(summary: RunSummary, pictures: Sequence[tuple[str, Path, str]]) -> dict[str, Any]:
    """What the template prints, all of it present."""
    headline, validation = summary.estimate("test"), summary.metrics.get("validation", {})
    rows = [
        Row(TITLES.get(name, name), estimate, validation.get(name))
        for name, estimate in summary.metrics.get("test", {}).items()
        if "/" not in name
    ]
    return {
        "headline": headline if headline.defined else None,
        "confidence": summary.confidence,
        "run": summary,
        "known": chosen_with(summary.known_defects),
        "reused": [stage for stage, reused in summary.reused.items() if reused],
        "rows": rows,
        "has_validation": bool(summary.metrics.get("validation")),
        "kinds": _kinds(summary),
        "pictures": [_embedded(*picture) for picture in pictures],
        "config": _words(summary.config),
        "environment": _words(summary.environment),
        "bar": _bar,
    }


def _kinds(summary: RunSummary) -> list[Kind]:
    test, prefix = summary.metrics.get("test", {}), "image_auroc/"
    names = [name.removeprefix(prefix) for name in test if name.startswith(prefix)]
    return [
        Kind(name, summary.kinds.get(name), test[prefix + name], test.get(f"image_recall/{name}", UNDEFINED))
        for name in names
    ]


def _embedded(title: str, path: Path, caption: str) -> Embedded:
    try:
        data = path.read_bytes()
    except OSError:
        return Embedded(title, caption, None, False)
    kind = _KINDS.get(path.suffix.lower(), "png")
    address = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Embedded(title, caption, address, _is_wide(path))


def _is_wide(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.width > 1200
    except OSError:
        return False


def _words(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Dotted names and their values, as text."""
    return [
        (
            name,
            (", ".join(map(number, value)) or "none") if isinstance(value, list | tuple) else number(value),
        )
        for name, value in flatten(values).items()
    ]


def _bar(estimate: Estimate) -> Any:
    """A value between 0 and 1 and its interval, drawn; hidden from screen readers, who have the numbers."""
    from markupsafe import Markup

    if not estimate.defined:
        return ""
    value = 100 * min(1.0, max(0.0, estimate.value))
    shapes = f'<rect class="value" width="{value:.1f}" height="10" y="1"/>'
    if estimate.has_interval:
        low, high = (100 * min(1.0, max(0.0, x)) for x in (estimate.low, estimate.high))
        shapes += (
            f'<rect class="interval" x="{low:.1f}" width="{max(high - low, 0.6):.1f}" height="2.4" y="4.8"/>'
        )
    title = html.escape(format(estimate, ".4f"))
    return Markup(
        f'<svg class="bar" viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
        f'<title>{title}</title><rect class="track" width="100" height="10" y="1"/>{shapes}</svg>'
    )
