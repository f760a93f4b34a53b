"""Two models side by side: their metrics on the same images, paired, and what they differ in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow_server.registry.packed_model import PackedModel, evaluate_again, recorded
from nfbmr.data.samples import Sample
from nfbmr.errors import NfbmrError
from nfbmr.evaluation.evaluation import TITLES
from nfbmr.evaluation.intervals import Estimate
from nfbmr.evaluation.metrics import IMAGE_METRICS
from nfbmr.resolve import flat
from nfbmr.text import size_of

_RESAMPLES = 2000
ELSEWHERE = ("tracking.", "output", "store", "data.path")
"""Settings that say where things are, not what a model is."""


@dataclass(frozen=True)
class Line:
    """A metric of both, and the first less the second."""

    first: float
    second: float
    difference: Estimate


@dataclass(frozen=True)
class ModelComparison:
    """A comparison.

    Attributes:
        labels: What both are called.
        how: Where the scores come from; or why there are none to compare.
        images: Images that both were scored on; 0 where there are none.
        metrics: By flat name.
        own: Image AUROC of each as it was evaluated, whatever the images.
        sizes: Bytes of each.
        thresholds: Threshold of each.
        settings: Keys in which they differ, with the value of each.
    """

    labels: tuple[str, str]
    how: str
    images: int
    metrics: Mapping[str, Line]
    evaluated: tuple[Estimate, Estimate]
    sizes: tuple[int, int]
    thresholds: tuple[float, float]
    settings: Mapping[str, tuple[Any, Any]]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        sides = ("first", "second")
        return {
            side: {
                "label": self.labels[i],
                "evaluated_image_auroc": self.evaluated[i].as_json(),
                "bytes": self.sizes[i],
                "threshold": self.thresholds[i],
            }
            for i, side in enumerate(sides)
        } | {
            "how": self.how,
            "images": self.images,
            "metrics": {
                name: {"first": line.first, "second": line.second, "difference": line.difference.as_json()}
                for name, line in self.metrics.items()
            },
            "settings": {key: dict(zip(sides, values, strict=True)) for key, values in self.settings.items()},
        }

    def text(self) -> str:
        """For people."""
        a, b = self.labels
        lines = [f"A  {a}", f"B  {b}", "", self.how, ""]
        if self.metrics:
            lines.append(f"  {'':<28}{'A':>8}{'B':>8}   A less B")
            lines += [
                f"  {TITLES[name]:<28}{line.first:>8.3f}{line.second:>8.3f}   {line.difference:+.3f}"
                for name, line in self.metrics.items()
            ]
        else:
            lines += [
                f"  image AUROC of {x}, on its own test images: {estimate}"
                for x, estimate in zip("AB", self.evaluated, strict=True)
            ]
        lines.append(f"  {'threshold':<28}{self.thresholds[0]:>8.3g}{self.thresholds[1]:>8.3g}")
        sizes = [size_of(size) for size in self.sizes]
        lines.append(f"  {'size':<27}{sizes[0]:>9}{sizes[1]:>9}")
        if self.settings:
            lines += ["", "  they differ in"]
            lines += [f"    {key:<24}{_short(x)}  |  {_short(y)}" for key, (x, y) in self.settings.items()]
        return "\n".join(lines)


def compare_models(
    first: PackedModel,
    second: PackedModel,
    samples: Sequence[Sample] | None = None,
    *,
    confidence: float = 0.95,
) -> ModelComparison:
    """Compare two models.

    Args:
        first: One.
        second: The other.
        samples: Images to evaluate both on again; by default as evaluated, or where that was on other images
            the first one's test images.
        confidence: Confidence of the intervals.
    """
    lines: dict[str, Line] = {}
    images = 0
    try:
        pair = None if samples is not None else recorded(first, second)
        pair = pair or evaluate_again(first, second, samples)
        how, images = pair.how, len(pair.first)
        for name in IMAGE_METRICS:
            value_a, value_b = pair.values(name)
            estimate = pair.difference(name, confidence=confidence, resamples=_RESAMPLES)
            lines[name] = Line(value_a, value_b, estimate)
    except NfbmrError as error:
        how = f"not compared image by image: {error.what}"
    summaries = [packed.evidence.summary for packed in (first, second)]
    aurocs = [summary.estimate("test") for summary in summaries]
    a, b = (flat(summary.configuration) for summary in summaries)
    differing = {
        key: (a[key], b.get(key)) for key in a if a[key] != b.get(key) and not key.startswith(ELSEWHERE)
    }
    return ModelComparison(
        (first.label, second.label),
        how,
        images,
        lines,
        (aurocs[0], aurocs[1]),
        (first.size_bytes(), second.size_bytes()),
        (summaries[0].threshold, summaries[1].threshold),
        differing,
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"
