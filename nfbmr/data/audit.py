"""Does a split leak: are the parts that are tested also trained on?

Three signs are looked for between the training side (training and validation) and the test side: the same
bytes, groups that stand on both sides, and twins, which are images of one part
(:mod:`nfbmr.data.fingerprints`).

**When two images are twins.** Their similarity is at least ``(1 + m) / 2``, where m is what unrelated
images of the set have in common: the lower quartile over random pairs across the split, at least 0.1. So
twins are nearer to each other than halfway from the ordinary to the identical, and where all parts have
the same outline, m and with it the threshold rise. On Magnetic Tile Defects the threshold is 0.55; no two
images of different tiles come above 0.39 there, and all but one of the 1344 find another exposure of
their tile above 0.56 (the one is cropped to another shape). Rotated or mirrored views of a part are not
found.
"""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.fingerprints import (
    LARGEST_ASPECT_RATIO,
    Fingerprint,
    closer_look,
    fingerprint,
    similarities,
)
from nfbmr.data.samples import Sample, Split
from nfbmr.errors import ImageError
from nfbmr.wording import count, plural

SHORTLIST = 32
RANDOM_PAIRS = 400
LEAST_IN_COMMON = 0.1
IN_DOUBT = 0.6
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Match:
    """A test image and the image most like it on the training side.

    Attributes:
        test: The test image.
        train: Its nearest image, of training or validation.
        similarity: From about 0 to 1, as :mod:`nfbmr.data.fingerprints` defines it.
        same_bytes: Whether the files are identical.
    """

    test: Sample
    train: Sample
    similarity: float
    same_bytes: bool


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        split: The split's name.
        seed: The seed it was drawn with.
        threshold: Similarity from which two images count as twins.
        nearest: The best match of each test image that has one, most similar first.
        tested: Test images looked at, by kind of defect.
        shared_groups: Groups on both sides.
        unread: Why images could not be read, by name; they are not looked at.
    """

    split: str
    seed: int
    threshold: float
    nearest: tuple[Match, ...]
    tested: dict[str, int]
    shared_groups: tuple[str, ...]
    unread: dict[str, str]

    @property
    def twins(self) -> tuple[Match, ...]:
        """Matches that show one part, most similar first."""
        return tuple(m for m in self.nearest if m.same_bytes or m.similarity >= self.threshold)

    @property
    def leaks(self) -> bool:
        """Whether anything of the test side was seen on the training side."""
        return bool(self.twins or self.shared_groups)

    def share(self, *, good: bool | None = None) -> float:
        """Share of the test images (all, the good, or the defective) with a twin; 0 where there are none.

        Example:
            >>> Audit("random", 0, 0.75, (), {"good": 2}, (), {}).share()
            0.0
        """
        tested = sum(n for kind, n in self.tested.items() if good is None or (kind == "good") == good)
        found = sum(1 for m in self.twins if good is None or m.test.is_good == good)
        return found / tested if tested else 0.0

    @property
    def finding(self) -> str | None:
        """The leak in one sentence, for a warning; None where there is none."""
        if not self.leaks:
            return None
        parts = []
        if self.twins:
            parts.append(
                f"{self.share(good=True):.0%} of the good and {self.share(good=False):.0%} of the defective "
                "test images have a twin in training"
            )
        if shared := self.shared_groups:
            parts.append(
                f"{count(len(shared), 'group')} {plural(len(shared), 'stands', 'stand')} on both sides"
            )
        return f"the split {self.split!r} leaks: {'; '.join(parts)}"

    def as_json(self) -> dict[str, object]:
        """Everything, for programs; similarities rounded to four digits."""
        kinds = Counter(m.test.defect for m in self.twins)
        return {
            "split": self.split,
            "seed": self.seed,
            "leaks": self.leaks,
            "threshold": round(self.threshold, 4),
            "share_with_twin": {
                "all": self.share(),
                "good": self.share(good=True),
                "defective": self.share(good=False),
            },
            "kinds": {k: {"tested": n, "with_twin": kinds[k]} for k, n in self.tested.items()},
            "same_bytes": sum(m.same_bytes for m in self.twins),
            "shared_groups": list(self.shared_groups),
            "twins": [
                {
                    "test": m.test.name,
                    "train": m.train.name,
                    "similarity": round(m.similarity, 4),
                    "same_bytes": m.same_bytes,
                }
                for m in self.twins
            ],
            "unread": self.unread,
        }

    def render(self, *, examples: int = 5) -> str:
        """Everything that matters, for people."""
        lines = [
            f"split {self.split}, seed {self.seed}: " + ("IT LEAKS" if self.leaks else "no leak found"),
            "",
        ]
        kinds = Counter(m.test.defect for m in self.twins)
        width = max((len(k) for k in self.tested), default=4)
        lines.append(f"  {'test images':<{width}}  number  with a twin in training")
        for kind, n in self.tested.items():
            lines.append(f"  {kind:<{max(width, 11)}}  {n:6d}  {kinds[kind]:6d}  ({kinds[kind] / n:.0%})")
        lines += ["", f"  identical files on both sides: {sum(m.same_bytes for m in self.twins)}"]
        shown = ", ".join(repr(g) for g in self.shared_groups[:examples])
        more = ", ..." if len(self.shared_groups) > examples else ""
        lines.append(
            f"  groups on both sides: {len(self.shared_groups)}" + (f" ({shown}{more})" if shown else "")
        )
        rest = [m.similarity for m in self.nearest if not m.same_bytes and m.similarity < self.threshold]
        if rest:
            lines.append(f"  most alike below the threshold of {self.threshold:.2f}: {max(rest):.2f}")
        if self.twins:
            lines += ["", "  the most similar pairs (test, training):"]
            lines += [
                f"    {m.similarity:.2f}  {m.test.name!r}  {m.train.name!r}" for m in self.twins[:examples]
            ]
        if self.unread:
            left_out = count(
                len(self.unread), "image that could not be read", "images that could not be read"
            )
            lines += ["", f"  left out: {left_out} ('nfbmr data inspect')"]
        return "\n".join(lines)


def audit_split(split: Split, *, threads: int | None = None) -> Audit:
    """Look for test images that have a twin in training or validation.

    Every image is read once. Of each test image the `SHORTLIST` most similar ones, by a blurred fingerprint,
    are compared in full, and the best two once more over different crops where that could decide.

    Args:
        split: The split.
        threads: Images read at once; nothing means one per core, eight at most.

    Returns:
        The audit. Images that cannot be read are named in it, not raised.
    """
    known = [*split.train, *split.validation]
    prints, unread = _fingerprints([*known, *split.test], threads)
    train = [s for s in known if s.name in prints]
    test = [s for s in split.test if s.name in prints]
    nearest: list[Match] = []
    threshold = (1 + LEAST_IN_COMMON) / 2
    if train and test:
        comparison = _Comparison(train, test, prints)
        threshold = (1 + comparison.in_common(split.seed)) / 2
        for row, sample in enumerate(test):
            match = comparison.best(row, sample, threshold)
            if match is not None:
                nearest.append(match)
    groups = {s.group for s in known if s.group is not None} & {s.group for s in split.test}
    nearest.sort(key=lambda m: (not m.same_bytes, -m.similarity, m.test.name))
    return Audit(
        split.name,
        split.seed,
        threshold,
        tuple(nearest),
        dict(sorted(Counter(s.defect for s in test).items())),
        tuple(sorted(g for g in groups if g is not None)),
        unread,
    )


class _Comparison:
    """Fingerprints of both sides, stacked."""

    def __init__(
        self, train: Sequence[Sample], test: Sequence[Sample], prints: dict[str, Fingerprint]
    ) -> None:
        self.train, self.test = train, test
        self.train_prints = [prints[s.name] for s in train]
        self.test_prints = [prints[s.name] for s in test]
        self.spectrum_NHF = np.stack([p.spectrum_HF for p in self.train_prints])
        self.coarse_ND = np.stack([p.coarse_D for p in self.train_prints])
        self.aspect_N = np.array([p.aspect for p in self.train_prints])
        self.digests: dict[str, int] = {}
        for index, taken in enumerate(self.train_prints):
            self.digests.setdefault(taken.digest, index)

    def in_common(self, seed: int) -> float:
        """Similarity that unrelated images have: the lower quartile over random pairs across the split."""
        rng = random.Random(f"audit {seed}")
        values: list[float] = []
        for _ in range(RANDOM_PAIRS):
            a, b = rng.randrange(len(self.test)), rng.randrange(len(self.train))
            if self._comparable(a)[b]:
                values.append(float(similarities(self.test_prints[a].spectrum_HF, self.spectrum_NHF[b])))
        return max(LEAST_IN_COMMON, float(np.percentile(values, 25))) if values else LEAST_IN_COMMON

    def best(self, row: int, sample: Sample, threshold: float) -> Match | None:
        """The image on the training side that is most like a test image."""
        taken = self.test_prints[row]
        if taken.digest in self.digests:
            return Match(sample, self.train[self.digests[taken.digest]], 1.0, same_bytes=True)
        coarse_N = np.where(self._comparable(row), self.coarse_ND @ taken.coarse_D, -np.inf)
        shortlist = [
            int(i) for i in np.argsort(-coarse_N, kind="stable")[:SHORTLIST] if coarse_N[i] > -np.inf
        ]
        if not shortlist:
            return None
        found = similarities(taken.spectrum_HF, self.spectrum_NHF[shortlist])
        ranked = sorted(zip(map(float, found), shortlist, strict=True), key=lambda pair: (-pair[0], pair[1]))
        if IN_DOUBT * threshold <= ranked[0][0] < threshold:
            ranked = [(max(s, closer_look(sample.path, self.train[i].path)), i) for s, i in ranked[:2]]
        similarity, index = max(ranked, key=lambda pair: (pair[0], -pair[1]))
        return Match(sample, self.train[index], min(similarity, 1.0), same_bytes=False)

    def _comparable(self, row: int) -> NDArray[np.bool_]:
        near: NDArray[np.bool_] = np.abs(self.aspect_N - self.test_prints[row].aspect) < np.log(
            LARGEST_ASPECT_RATIO
        )
        return near


def _fingerprints(
    samples: Iterable[Sample], threads: int | None
) -> tuple[dict[str, Fingerprint], dict[str, str]]:
    """Fingerprints, and what is wrong with the images that have none, by name."""

    def one(sample: Sample) -> Fingerprint | ImageError:
        try:
            return fingerprint(sample.path)
        except ImageError as error:
            return error

    samples = list(samples)
    prints: dict[str, Fingerprint] = {}
    unread: dict[str, str] = {}
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1), "audit") as pool:
        for sample, result in zip(samples, pool.map(one, samples), strict=True):
            if isinstance(result, ImageError):
                unread[sample.name] = result.what
                _log.warning("left out of the audit: %r (%s)", sample.name, result.what)
            else:
                prints[sample.name] = result
    return prints, unread
