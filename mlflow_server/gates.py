"""The gates that a version passes on its way to an alias.

Each is a function of what is known of the version, and gives a :class:`~mlflow_server.finding.Finding`: what
was measured, the limit, and one sentence why. Nothing here changes anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlflow_server.clean_room import Visit, enter
from mlflow_server.contender import Contender, Duel, again, recorded, same_data
from mlflow_server.finding import Finding
from mlflow_server.gate_settings import GATES, GateSettings
from nfbmr.data.samples import Sample
from nfbmr.errors import NfbmrError, RegistryError
from nfbmr.evaluation.evaluation import TITLES
from nfbmr.evaluation.intervals import Estimate, proportion
from nfbmr.wording import count

MEGABYTE = 1_000_000
OFF = "turned off"


@dataclass(frozen=True)
class Case:
    """What is to be judged.

    Attributes:
        candidate: The version.
        champion: The one that the alias points to; None where there is none.
        settings: Of the gates.
        samples: Images to evaluate both on again; by default the candidate's test images.
    """

    candidate: Contender
    champion: Contender | None
    settings: GateSettings
    samples: Sequence[Sample] | None = None

    @cached_property
    def visit(self) -> Visit:
        """What came of the candidate in a clean process."""
        return enter(self.candidate.folder, [image for image, _ in self.images()])

    def images(self) -> list[tuple[Path, float]]:
        """Images to try it on, with their recorded scores: those that travel with it."""
        return [(one.file, one.score) for one in self.candidate.evidence.references]

    @cached_property
    def fought(self) -> Duel:
        """Candidate and champion on the same images.

        Raises:
            NfbmrError: There is no champion, or there are no such images.
        """
        if self.champion is None:
            raise RegistryError("there is no champion")
        found = None if self.samples is not None else recorded(self.candidate, self.champion)
        return found or again(self.candidate, self.champion, self.samples)


def judge(case: Case, told: Callable[[Finding], None] = lambda _: None) -> tuple[Finding, ...]:
    """Every gate's verdict, in order.

    Args:
        case: What is to be judged.
        told: Called with each finding as it is made.
    """
    found = []
    for name in GATES:
        on = case.settings.is_on(name)
        finding = _JUDGES[name](case) if on else Finding(name, None, None, "off", OFF)
        told(finding)
        found.append(finding)
    return tuple(found)


def _reproduces(case: Case) -> Finding:
    limit, images, visit = case.settings.limit("reproduces"), case.images(), case.visit
    gate = "reproduces"
    if visit.problem is not None:
        what = f"it does not load in a clean process: {visit.problem}"
        return Finding(gate, False, None, limit, what)
    if not images:
        what = "no images travel with it, so nothing could be compared: they were gone when it was registered"
        return Finding(gate, False, None, limit, what)
    broken = [error for error in visit.errors if error is not None]
    if broken:
        return Finding(gate, False, None, limit, f"it cannot score its own images: {broken[0]}")
    pairs = zip(visit.scores, (score for _, score in images), strict=True)
    worst = max(abs(got - kept) / (1 + abs(kept)) for got, kept in pairs if got is not None)
    details = {
        "images": len(images),
        "load_seconds": round(visit.load_seconds, 2),
        "peak_megabytes": round(visit.peak_bytes / MEGABYTE, 1),
    }
    passed = limit is not None and worst <= limit
    verb = "gives" if passed else "does not give"
    what = f"loaded in a clean process, it {verb} the recorded scores of {count(len(images), 'image')}"
    return Finding(gate, passed, worst, limit, f"{what}, within {worst:.1g}", details)


def _same_data(case: Case) -> Finding:
    gate, wanted = "same_data", "same, or evaluated again"
    if case.champion is None:
        return Finding(gate, True, "no champion", wanted, "there is no champion to be compared with")
    try:
        duel = case.fought
    except NfbmrError as error:
        what = f"other images or another split than the champion's, and not evaluated again: {error.what}"
        return Finding(gate, False, "different", wanted, what, _data(case))
    measured = "same" if duel.recorded else "evaluated again"
    return Finding(gate, True, measured, wanted, duel.how, _data(case))


def _data(case: Case) -> Mapping[str, object]:
    both = {"candidate": case.candidate, "champion": case.champion}
    found: dict[str, object] = {
        name: {
            "dataset": one.evidence.summary["dataset"]["digest"],
            "split": f"{one.evidence.summary['split']} {one.evidence.summary['split_digest']}",
        }
        for name, one in both.items()
        if one is not None
    }
    if case.champion is not None:
        found["same"] = same_data(case.candidate.evidence, case.champion.evidence)
    return found


def _not_worse(case: Case) -> Finding:
    gate, settings = "not_worse", case.settings
    margin = settings.limit(gate) or 0.0
    limit, title = -margin, TITLES[settings.metric]
    if case.champion is None:
        return Finding(gate, True, None, limit, "there is no champion to be worse than")
    try:
        duel = case.fought
    except NfbmrError as error:
        return Finding(gate, False, None, limit, f"there is nothing to compare it on: {error.what}")
    own, other = duel.values(settings.metric)
    found = duel.difference(settings.metric, confidence=settings.confidence, resamples=settings.resamples)
    details = {
        "metric": settings.metric,
        "candidate": own if math.isfinite(own) else None,
        "champion": other if math.isfinite(other) else None,
        "difference": found.as_json(),
        "images": len(duel.first),
    }
    if not (found.defined and found.has_interval):
        what = f"{title} is not defined on these {count(len(duel.first), 'image')}"
        return Finding(gate, False, None, limit, what, details)
    passed = found.low >= limit
    numbers = f"{title} {own:.3f} against the champion's {other:.3f}, a difference of {_signed(found)}"
    if passed:
        verdict = f"it is not worse by more than {margin:g}"
    elif found.high < limit:
        verdict = f"it is worse by more than {margin:g}"
    else:
        verdict = f"it may be worse by more than {margin:g}: {len(duel.first)} images cannot tell"
    return Finding(gate, passed, found.low, limit, f"{numbers}; {verdict}", details)


def _not_peeked(case: Case) -> Finding:
    peeked = bool(case.candidate.evidence.summary["test_peeked"])
    what = "its choices were made on the test set" if peeked else "nothing was chosen on its test set"
    return Finding("not_peeked", not peeked, "peeked" if peeked else "not peeked", "not peeked", what)


def _no_leak(case: Case) -> Finding:
    gate, evidence = "no_leak", case.candidate.evidence
    if not evidence.evaluated:
        what = "its run ended before the test set was read, so its split was never audited"
        return Finding(gate, False, "not audited", "no leak", what)
    leak = evidence.summary.get("leak")
    what = leak or "the audit of its split found no part on both sides"
    return Finding(gate, leak is None, "no leak" if leak is None else "leak", "no leak", what)


def _false_rejects(case: Case) -> Finding:
    gate, evidence, settings = "false_rejects", case.candidate.evidence, case.settings
    limit = settings.limit(gate) or 0.0
    if not evidence.evaluated:
        return Finding(gate, False, None, limit, "its run ended before it kept its validation scores")
    side = evidence.side("validation").good
    rejected = side.scores.score > side.threshold
    rate = float(rejected.mean()) if len(rejected) else 0.0
    # Several images of one part tell little more than one.
    groups = side.scores.groups or side.scores.names
    parts = len({group or name for group, name in zip(groups, side.scores.names, strict=True)})
    found = proportion(rate * parts, parts, settings.confidence)
    stated = float(evidence.summary["selection"]["false_reject_rate"])
    details = {
        "rate": found.as_json(),
        "stated": stated,
        "images": len(rejected),
        "parts": parts,
        "threshold": side.threshold,
    }
    if not found.defined:
        return Finding(gate, False, None, limit, "there are no good validation images", details)
    passed = found.high <= limit
    images = count(len(rejected), "good validation image")
    what = f"threshold {side.threshold:.4g} rejects {found:.1%} of {images}, {stated:.0%} are stated"
    if not passed and found.value <= limit:
        what += f"; {count(parts, 'part')} cannot tell whether it is less than {limit:.0%}"
    return Finding(gate, passed, found.high, limit, what, details)


def _latency(case: Case) -> Finding:
    gate, limit, visit = "latency", case.settings.limit("latency") or 0.0, case.visit
    if visit.problem is not None:
        return Finding(gate, False, None, limit, "it could not be measured: the model does not load")
    details = {"file_to_row_ms": round(visit.image_ms, 2)}
    what = f"{visit.latency_ms:.1f} ms an image on this machine, one at a time; {limit:g} are allowed"
    return Finding(gate, visit.latency_ms <= limit, visit.latency_ms, limit, what, details)


def _size(case: Case) -> Finding:
    limit, size = case.settings.limit("size") or 0.0, case.candidate.size_bytes() / MEGABYTE
    return Finding("size", size <= limit, size, limit, f"{size:.1f} MB in all; {limit:g} are allowed")


def _signed(estimate: Estimate) -> str:
    return f"{estimate:+.3f}"


_JUDGES: Mapping[str, Callable[[Case], Finding]] = {
    "reproduces": _reproduces,
    "same_data": _same_data,
    "not_worse": _not_worse,
    "not_peeked": _not_peeked,
    "no_leak": _no_leak,
    "false_rejects": _false_rejects,
    "latency": _latency,
    "size": _size,
}
