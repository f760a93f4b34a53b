"""Does a split leak: are the parts that are tested also trained on?

Three signs are looked for between the training side (training and validation) and the test side: the same
bytes, groups that stand on both sides, and twins, which are images of one part.

**When two images are twins.** One is laid on the other (:mod:`nfbmr.data.registration`), turned by quarters
or a few degrees, mirrored, or cropped as it may be. What is their own, the fine structure without what
repeats or outlines (:mod:`nfbmr.data.fingerprints`), is then correlated place by place; s is the mean over
the quarter of the places that agree least. Parts of one kind share contours, prints and patterns, and agree
in these alone: s is near 0. With u = -log(1 - s), m and d the median and the distance from it to the 84th
percentile of u over strangers of this very set (:meth:`nfbmr.data.matching.Matcher.strangers`)::

    twin if u >= max(u(0.45), m + 6 d) in at least 6 places
    unsure if u >= max(u(0.3), m + 4 d) in at least 4 places

A closer look at such a pair (:mod:`nfbmr.data.closer`) may find that each has a grain of its own, which makes
them different, or that it cannot be told, as of pictures in black and white of boards printed alike. Where
a set's parts are like each other everywhere, the bounds rise. A pair of which it is unsure is listed and
drawn, and does not make a split leak.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from nfbmr.data import verdicts
from nfbmr.data.closer import closer_look
from nfbmr.data.fingerprints import Fingerprint, fingerprint
from nfbmr.data.matching import Found, Matcher
from nfbmr.data.samples import Sample, Split
from nfbmr.data.thumbnails import prune
from nfbmr.data.verdicts import Compared, Pair
from nfbmr.errors import ImageError
from nfbmr.text import count, plural

TWIN, UNSURE = 0.45, 0.3
"""Similarity from which a pair is the same part, and from which it may be."""
TWIN_SPREADS, UNSURE_SPREADS = 6.0, 4.0
"""How far above chance that has to lie, in spreads of strangers' similarities."""
_LEAST_SPREAD = 0.03
PLACES, FEW_PLACES = 6, 4
"""Places that have to agree for a twin, and for one that may be."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Match:
    """A test image and the image most like it on the training side.

    Attributes:
        test: The test image.
        train: Its nearest image, of training or validation.
        similarity: s, from about 0 to 1.
        same_bytes: Whether the files are identical.
        verdict: ``"twin"``, ``"unsure"`` or ``"different"``.
    """

    test: Sample
    train: Sample
    similarity: float
    same_bytes: bool
    verdict: str


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
        identical: Names of images with the same bytes, on whichever side.
    """

    split: str
    seed: int
    threshold: float
    nearest: tuple[Match, ...]
    tested: dict[str, int]
    shared_groups: tuple[str, ...]
    unread: dict[str, str]
    identical: tuple[tuple[str, ...], ...] = ()

    @property
    def near_duplicates(self) -> tuple[Match, ...]:
        """Twins: matches that show one part, most similar first."""
        return tuple(m for m in self.nearest if m.verdict == "twin")

    @property
    def unsure(self) -> tuple[Match, ...]:
        """Matches that may show one part; they are for people to judge, and no leak."""
        return tuple(m for m in self.nearest if m.verdict == "unsure")

    @property
    def copies(self) -> int:
        """Images that are another's bytes once more."""
        return sum(len(names) - 1 for names in self.identical)

    @property
    def leaks(self) -> bool:
        """Whether anything of the test side was seen on the training side."""
        return bool(self.near_duplicates or self.shared_groups)

    def share(self, *, good: bool | None = None) -> float:
        """Share of the test images (all, the good, or the defective) with a twin; 0 where there are none.

        Example:
            >>> Audit("random", 0, 0.75, (), {"good": 2}, (), {}).share()
            0.0
        """
        tested = sum(n for kind, n in self.tested.items() if good is None or (kind == "good") == good)
        twins = sum(1 for m in self.near_duplicates if good is None or m.test.is_good == good)
        return twins / tested if tested else 0.0

    @property
    def finding(self) -> str | None:
        """The leak in one sentence, for a warning; None where there is none."""
        if not self.leaks:
            return None
        parts = []
        if self.near_duplicates:
            parts.append(
                f"{self.share(good=True):.0%} of the good and {self.share(good=False):.0%} of the defective "
                "test images have a twin in training"
            )
        if shared := self.shared_groups:
            parts.append(
                f"{count(len(shared), 'group')} {plural(len(shared), 'stands', 'stand')} on both sides"
            )
        return f"the split {self.split!r} leaks: {'; '.join(parts)}"

    @property
    def doubt(self) -> str | None:
        """What it is not sure of, in one sentence; None where it is sure."""
        if not self.unsure:
            return None
        images = count(len(self.unsure), "test image")
        return (
            f"the audit of the split {self.split!r} is not sure whether {images} "
            f"{plural(len(self.unsure), 'shows', 'show')} a part that was trained on: look at the pairs"
        )

    def as_json(self) -> dict[str, object]:
        """Everything, for programs; similarities rounded to four digits."""
        kinds = Counter(m.test.defect for m in self.near_duplicates)
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
            "same_bytes": sum(m.same_bytes for m in self.near_duplicates),
            "shared_groups": list(self.shared_groups),
            "twins": [_pair_json(m) for m in self.near_duplicates],
            "unsure": [_pair_json(m) for m in self.unsure],
            "identical": [list(names) for names in self.identical],
            "unread": self.unread,
        }

    def render(self, *, examples: int = 5) -> str:
        """Everything that matters, for people."""
        lines = [
            f"split {self.split}, seed {self.seed}: " + ("IT LEAKS" if self.leaks else "no leak found"),
            "",
        ]
        kinds = Counter(m.test.defect for m in self.near_duplicates)
        width = max((len(k) for k in self.tested), default=4)
        lines.append(f"  {'test images':<{width}}  number  with a twin in training")
        for kind, n in self.tested.items():
            lines.append(f"  {kind:<{max(width, 11)}}  {n:6d}  {kinds[kind]:6d}  ({kinds[kind] / n:.0%})")
        lines += ["", f"  identical files on both sides: {sum(m.same_bytes for m in self.near_duplicates)}"]
        shown = ", ".join(repr(g) for g in self.shared_groups[:examples])
        more = ", ..." if len(self.shared_groups) > examples else ""
        lines.append(
            f"  groups on both sides: {len(self.shared_groups)}" + (f" ({shown}{more})" if shown else "")
        )
        lines.append(f"  identical files on whichever side: {self.copies}")
        rest = [m.similarity for m in self.nearest if m.verdict == "different"]
        if rest:
            lines.append(f"  most alike below the threshold of {self.threshold:.2f}: {max(rest):.2f}")
        if self.near_duplicates:
            lines += ["", "  the most similar pairs (test, training):"]
            lines += [
                f"    {m.similarity:.2f}  {m.test.name!r}  {m.train.name!r}"
                for m in self.near_duplicates[:examples]
            ]
        if self.unsure:
            lines += [
                "",
                f"  not sure of {count(len(self.unsure), 'pair')}, to be judged by eye (--pictures):",
            ]
            lines += [
                f"    {m.similarity:.2f}  {m.test.name!r}  {m.train.name!r}" for m in self.unsure[:examples]
            ]
        lines += self._advice(examples)
        if self.unread:
            left_out = count(
                len(self.unread), "image that could not be read", "images that could not be read"
            )
            lines += ["", f"  left out: {left_out} ('nfbmr data inspect')"]
        return "\n".join(lines)

    def _advice(self, examples: int) -> list[str]:
        """Which files are identical, and what to do about them and about twins."""
        lines: list[str] = []
        if self.identical:
            lines += ["", "  identical files:"]
            lines += [f"    {' = '.join(map(repr, names))}" for names in self.identical[:examples]]
            if len(self.identical) > examples:
                lines.append(f"    and {len(self.identical) - examples} more (--json lists all)")
            lines.append(
                "  keep one of each and remove the others: a copy counts twice and shows nothing new"
            )
        if self.near_duplicates:
            lines += [
                "",
                "  to mend it: remove the twins of one side, or, where the path names the part, keep its",
                "  images together with --split group --group-by REGEX (its first group is the part's name)",
            ]
        return lines


def audit_split(split: Split, *, threads: int | None = None) -> Audit:
    """Look for test images that have a twin in training or validation.

    Small pictures of all images, and what an audit of the same images found, are kept in this machine's
    cache.

    Args:
        split: The split.
        threads: Images worked off at once; nothing means one per core, eight at most.

    Returns:
        The audit. Images that cannot be read are named in it, not raised.
    """
    known = [*split.train, *split.held_out]
    prints, unread = _fingerprints([*known, *split.test], threads)
    train = [s for s in known if s.name in prints]
    test = [s for s in split.test if s.name in prints]
    compared = Compared((TWIN, UNSURE), ())
    if train and test:
        trained, tested = ([prints[s.name].digest for s in side] for side in (train, test))
        key = verdicts.key_of(trained, tested, split.seed)
        compared = verdicts.kept(key, len(test), len(train)) or _compare(
            train, test, prints, split.seed, threads
        )
        verdicts.keep(key, compared)
        prune()
    nearest = [
        Match(sample, train[pair.train], pair.similarity, pair.same_bytes, _verdict(pair, compared.bounds))
        for sample, pair in zip(test, compared.pairs, strict=False)
        if pair is not None
    ]
    groups = {s.group for s in known if s.group is not None} & {s.group for s in split.test}
    nearest.sort(key=lambda m: (not m.same_bytes, -m.similarity, m.test.name))
    by_digest: dict[str, list[str]] = defaultdict(list)
    for name, taken in prints.items():
        by_digest[taken.digest].append(name)
    return Audit(
        split.name,
        split.seed,
        compared.bounds[0],
        tuple(nearest),
        dict(sorted(Counter(s.defect for s in test).items())),
        tuple(sorted(g for g in groups if g is not None)),
        unread,
        tuple(sorted(tuple(sorted(names)) for names in by_digest.values() if len(names) > 1)),
    )


def _compare(
    train: Sequence[Sample],
    test: Sequence[Sample],
    prints: dict[str, Fingerprint],
    seed: int,
    threads: int | None,
) -> Compared:
    """The nearest training image of each test image, and from which similarity on it is a twin."""
    first: dict[str, int] = {}
    for index, sample in enumerate(train):
        first.setdefault(prints[sample.name].digest, index)
    matcher = Matcher([prints[s.name] for s in train])

    def nearest_of(sample: Sample) -> Pair | None:
        taken = prints[sample.name]
        if taken.digest in first:
            return Pair(first[taken.digest], 1.0, 0, same_bytes=True)
        candidate = matcher.best(taken)
        return None if candidate is None else _pair(sample, train[candidate.index], candidate)

    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1), "audit") as pool:
        pairs = tuple(pool.map(nearest_of, test))
    strangers = matcher.strangers([prints[s.name] for s in test], seed)
    alike = [_pair(test[row], train[candidate.index], candidate).similarity for row, candidate in strangers]
    return Compared(_bounds(alike), pairs)


def _pair(test: Sample, train: Sample, candidate: Found) -> Pair:
    """Two pictures with what a closer look says, where they agree at all: grain that differs counts alone."""
    similarity, places = min(candidate.agreement.worst, 1.0), candidate.agreement.places
    if similarity < UNSURE:
        return Pair(candidate.index, similarity, places, same_bytes=False, closer="different")
    look = closer_look(test.path, train.path, candidate.view)
    if look.verdict == "different":
        similarity = min(similarity, look.grain)
    return Pair(candidate.index, similarity, places, same_bytes=False, closer=look.verdict)


def _bounds(strangers: Sequence[float]) -> tuple[float, float]:
    """Similarities from which two images are twins, and from which they may be."""
    u_N = -np.log1p(-np.clip(strangers, -1.0, 0.999))
    middle, high = np.percentile(u_N, [50, 84])
    spread = max(_LEAST_SPREAD, high - middle)
    return (
        max(TWIN, float(-np.expm1(-(middle + TWIN_SPREADS * spread)))),
        max(UNSURE, float(-np.expm1(-(middle + UNSURE_SPREADS * spread)))),
    )


def _verdict(pair: Pair, bounds: tuple[float, float]) -> str:
    twin, unsure = bounds
    if pair.same_bytes:
        return "twin"
    if pair.closer == "different" or pair.similarity < unsure or pair.places < FEW_PLACES:
        return "different"
    enough = pair.similarity >= twin and pair.places >= PLACES
    return "twin" if enough and pair.closer == "twin" else "unsure"


def _pair_json(match: Match) -> dict[str, object]:
    return {
        "test": match.test.name,
        "train": match.train.name,
        "similarity": round(match.similarity, 4),
        "same_bytes": match.same_bytes,
    }


def _fingerprints(
    samples: Iterable[Sample], threads: int | None
) -> tuple[dict[str, Fingerprint], dict[str, str]]:
    """Fingerprints, and what is wrong with the images that have none, by name."""

    def print_of(sample: Sample) -> Fingerprint | ImageError:
        try:
            return fingerprint(sample.path)
        except ImageError as error:
            return error

    samples = list(samples)
    prints: dict[str, Fingerprint] = {}
    unread: dict[str, str] = {}
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1), "audit") as pool:
        for sample, result in zip(samples, pool.map(print_of, samples), strict=True):
            if isinstance(result, ImageError):
                unread[sample.name] = result.what
                _log.warning("left out of the audit: %r (%s)", sample.name, result.what)
            else:
                prints[sample.name] = result
    return prints, unread
