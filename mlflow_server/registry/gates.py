"""The gates that a version passes on its way to an alias.

Each is a function of what is known of the version, and gives a
:class:`~mlflow_server.registry.gate_result.GateResult`: what was measured, the limit, and one sentence why.
Nothing here changes anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlflow_server.registry.gate_result import GateResult
from mlflow_server.registry.gate_settings import GATES, GateSettings
from mlflow_server.registry.packed_model import PackedModel, PairedScores, evaluate_again, recorded, same_data
from mlflow_server.registry.sandbox import Visit, enter
from nfbmr.data.samples import Sample
from nfbmr.errors import NfbmrError, RegistryError
from nfbmr.evaluation.evaluation import TITLES
from nfbmr.evaluation.intervals import proportion
from nfbmr.text import count

_MEGABYTE = 1_000_000
_OFF = "turned off"


@dataclass(frozen=True)
class Case:
    """What is to be judged.

    Attributes:
        candidate: The version.
        champion: The one that the alias points to; None where there is none.
        settings: Settings of the gates.
        samples: Images to evaluate both on again; by default the candidate's test images.
    """

    candidate: PackedModel
    champion: PackedModel | None
    settings: GateSettings
    samples: Sequence[Sample] | None = None

    @cached_property
    def visit(self) -> Visit:
        """What came of the candidate in a clean process."""
        return enter(self.candidate.folder, [image for image, _ in self.images()])

    def images(self) -> list[tuple[Path, float]]:
        """Images to try it on, with their recorded scores: those that travel with it."""
        return [(reference.file, reference.score) for reference in self.candidate.evidence.references]

    @cached_property
    def paired_scores(self) -> PairedScores:
        """Candidate and champion on the same images.

        Raises:
            NfbmrError: There is no champion, or there are no such images.
        """
        if self.champion is None:
            raise RegistryError("there is no champion")
        samples = None if self.samples is not None else recorded(self.candidate, self.champion)
        return samples or evaluate_again(self.candidate, self.champion, self.samples)


def judge(case: Case, on_result: Callable[[GateResult], None] = lambda _: None) -> tuple[GateResult, ...]:
    """Every gate's verdict, in order.

    Args:
        case: What is to be judged.
        on_result: Called with each gate's result as it is made.
    """
    results = []
    for name in GATES:
        on = case.settings.is_on(name)
        result = _JUDGES[name](case) if on else GateResult(name, None, None, "off", _OFF)
        on_result(result)
        results.append(result)
    return tuple(results)


def _reproduces(case: Case) -> GateResult:
    limit, images, visit = case.settings.limit("reproduces"), case.images(), case.visit
    gate = "reproduces"
    if visit.problem is not None:
        what = f"it does not load in a clean process: {visit.problem}"
        return GateResult(gate, False, None, limit, what)
    if not images:
        what = "no images travel with it, so nothing could be compared: they were gone when it was registered"
        return GateResult(gate, False, None, limit, what)
    broken = [error for error in visit.errors if error is not None]
    if broken:
        return GateResult(gate, False, None, limit, f"it cannot score its own images: {broken[0]}")
    pairs = zip(visit.scores, (score for _, score in images), strict=True)
    worst = max(abs(got - kept) / (1 + abs(kept)) for got, kept in pairs if got is not None)
    details = {
        "images": len(images),
        "load_seconds": round(visit.load_seconds, 2),
        "peak_megabytes": round(visit.peak_bytes / _MEGABYTE, 1),
    }
    passed = limit is not None and worst <= limit
    verb = "gives" if passed else "does not give"
    what = f"loaded in a clean process, it {verb} the recorded scores of {count(len(images), 'image')}"
    return GateResult(gate, passed, worst, limit, f"{what}, within {worst:.1g}", details)


def _same_data(case: Case) -> GateResult:
    gate, wanted = "same_data", "same, or evaluated again"
    if case.champion is None:
        return GateResult(gate, True, "no champion", wanted, "there is no champion to be compared with")
    try:
        pair = case.paired_scores
    except NfbmrError as error:
        what = f"other images or another split than the champion's, and not evaluated again: {error.what}"
        return GateResult(gate, False, "different", wanted, what, _data(case))
    measured = "same" if pair.recorded else "evaluated again"
    return GateResult(gate, True, measured, wanted, pair.how, _data(case))


def _data(case: Case) -> Mapping[str, object]:
    both = {"candidate": case.candidate, "champion": case.champion}
    values: dict[str, object] = {
        name: {
            "dataset": packed.evidence.summary.dataset.digest,
            "split": f"{packed.evidence.summary.split} {packed.evidence.summary.split_digest}",
        }
        for name, packed in both.items()
        if packed is not None
    }
    if case.champion is not None:
        values["same"] = same_data(case.candidate.evidence, case.champion.evidence)
    return values


def _not_worse(case: Case) -> GateResult:
    gate, settings = "not_worse", case.settings
    margin = settings.limit(gate) or 0.0
    limit, title = -margin, TITLES[settings.metric]
    if case.champion is None:
        return GateResult(gate, True, None, limit, "there is no champion to be worse than")
    try:
        pair = case.paired_scores
    except NfbmrError as error:
        return GateResult(gate, False, None, limit, f"there is nothing to compare it on: {error.what}")
    candidate, champion = pair.values(settings.metric)
    estimate = pair.difference(settings.metric, confidence=settings.confidence, resamples=settings.resamples)
    details = {
        "metric": settings.metric,
        "candidate": candidate if math.isfinite(candidate) else None,
        "champion": champion if math.isfinite(champion) else None,
        "difference": estimate.as_json(),
        "images": len(pair.first),
    }
    if not (estimate.defined and estimate.has_interval):
        what = f"{title} is not defined on these {count(len(pair.first), 'image')}"
        return GateResult(gate, False, None, limit, what, details)
    passed = estimate.low >= limit
    numbers = (
        f"{title} {candidate:.3f} against the champion's {champion:.3f}, a difference of {estimate:+.3f}"
    )
    if passed:
        verdict = f"it is not worse by more than {margin:g}"
    elif estimate.high < limit:
        verdict = f"it is worse by more than {margin:g}"
    else:
        verdict = f"it may be worse by more than {margin:g}: {len(pair.first)} images cannot tell"
    return GateResult(gate, passed, estimate.low, limit, f"{numbers}; {verdict}", details)


def _not_peeked(case: Case) -> GateResult:
    peeked = case.candidate.evidence.summary.test_peeked
    what = "its choices were made on the test set" if peeked else "nothing was chosen on its test set"
    return GateResult("not_peeked", not peeked, "peeked" if peeked else "not peeked", "not peeked", what)


def _no_leak(case: Case) -> GateResult:
    gate, evidence = "no_leak", case.candidate.evidence
    if not evidence.evaluated:
        what = "its run ended before the test set was read, so its split was never audited"
        return GateResult(gate, False, "not audited", "no leak", what)
    leak = evidence.summary.leak
    what = leak or evidence.summary.doubt or "the audit of its split found no part on both sides"
    return GateResult(gate, leak is None, "no leak" if leak is None else "leak", "no leak", what)


def _false_rejects(case: Case) -> GateResult:
    gate, evidence, settings = "false_rejects", case.candidate.evidence, case.settings
    limit = settings.limit(gate) or 0.0
    if not evidence.evaluated:
        return GateResult(gate, False, None, limit, "its run ended before it kept its validation scores")
    side = evidence.side("validation").good
    rejected = side.scores.score > side.threshold
    rate = float(rejected.mean()) if len(rejected) else 0.0
    # Several images of one part tell little more than one.
    groups = side.scores.groups or side.scores.names
    parts = len({group or name for group, name in zip(groups, side.scores.names, strict=True)})
    estimate = proportion(rate * parts, parts, settings.confidence)
    stated = evidence.summary.selection.false_reject_rate
    details = {
        "rate": estimate.as_json(),
        "stated": stated,
        "images": len(rejected),
        "parts": parts,
        "threshold": side.threshold,
    }
    if not estimate.defined:
        return GateResult(gate, False, None, limit, "there are no good validation images", details)
    passed = estimate.high <= limit
    images = count(len(rejected), "good validation image")
    what = f"threshold {side.threshold:.4g} rejects {estimate:.1%} of {images}, {stated:.0%} are stated"
    if not passed and estimate.value <= limit:
        what += f"; {count(parts, 'part')} cannot tell whether it is less than {limit:.0%}"
    return GateResult(gate, passed, estimate.high, limit, what, details)


def _latency(case: Case) -> GateResult:
    gate, limit, visit = "latency", case.settings.limit("latency") or 0.0, case.visit
    if visit.problem is not None:
        return GateResult(gate, False, None, limit, "it could not be measured: the model does not load")
    details = {"file_to_row_ms": round(visit.image_ms, 2)}
    what = f"{visit.latency_ms:.1f} ms an image on this machine, one at a time; {limit:g} are allowed"
    return GateResult(gate, visit.latency_ms <= limit, visit.latency_ms, limit, what, details)


def _size(case: Case) -> GateResult:
    limit, size = case.settings.limit("size") or 0.0, case.candidate.size_bytes() / _MEGABYTE
    return GateResult("size", size <= limit, size, limit, f"{size:.1f} MB in all; {limit:g} are allowed")


_JUDGES: Mapping[str, Callable[[Case], GateResult]] = {
    "reproduces": _reproduces,
    "same_data": _same_data,
    "not_worse": _not_worse,
    "not_peeked": _not_peeked,
    "no_leak": _no_leak,
    "false_rejects": _false_rejects,
    "latency": _latency,
    "size": _size,
}
