"""What a person should know of how a folder was read: what counts in no number, and names in doubt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from nfbmr.data.files import shown_below
from nfbmr.data.names import sounds_good
from nfbmr.data.samples import Dataset, Unused
from nfbmr.text import count, plural, visible

_SHOWN = 3


def notices(dataset: Dataset, *, masks: bool = True) -> Iterator[str]:
    """Sentences, the gravest first; none where everything was understood.

    Args:
        dataset: What was read.
        masks: Whether to speak of masks without a picture; a list of problems names each by itself.
    """
    kinds = sorted({s.defect for s in dataset.samples if sounds_good(s.defect)})
    for kind in kinds:
        number = sum(s.defect == kind for s in dataset.samples)
        yield (
            f"{visible(repr(kind))} ({count(number, 'image')}) is read as a kind of defect, though it sounds "
            "like good parts: rename it, or say so with data.layout or a manifest"
        )
    lost = [u for u in dataset.unused if u.is_mask]
    if masks and lost:
        yield (
            f"{count(len(lost), 'mask')} {plural(len(lost), 'is', 'are')} of no image and not used: "
            f"{_reasons(dataset, lost)}; pixel metrics lack them"
        )
    left = [u for u in dataset.unused if not u.is_mask]
    if left:
        are = plural(len(left), "is", "are")
        yield f"{count(len(left), 'image')} {are} not used: {_reasons(dataset, left)}"


def _reasons(dataset: Dataset, unused: Sequence[Unused]) -> str:
    """Every reason, with how often it holds and examples."""
    sentences = []
    for why, files in groupby(sorted(unused, key=lambda u: u.why), key=lambda u: u.why):
        same = list(files)
        shown = ", ".join(visible(repr(shown_below(u.path, dataset.root))) for u in same[:_SHOWN])
        number = f"{len(same)} " if len(same) < len(unused) else ""
        sentences.append(f"{number}{why}, such as {shown}")
    listed = sentences[:_SHOWN]
    more = len(sentences) - len(listed)
    return "; ".join(listed) + (f"; and {count(more, 'other reason')}" if more else "")
