"""Synthetic defects for validation: they choose epoch, reduction and weights, so that the test set need not.

The held-out normals are good parts of the same kind, and a defect pasted on one of them is the only sort of
defective part that can be had without looking at the test set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from nfbmr.data.pasting import Kind
from nfbmr.data.pictures import PasteDefect, Picture, picture_of
from nfbmr.data.samples import Sample


def synthetic_defects(
    samples: Sequence[Sample], *, kinds: Sequence[Kind], per_image: int, seed: int
) -> tuple[Picture, ...]:
    """One defective picture of each sample, `per_image` times.

    Kinds come in rotation. Donors are other samples, of another group where there is one. A defect depends
    on the image's own content, its kind and the seed, not on its place in the list.

    Args:
        samples: Held-out good parts.
        kinds: Among cutpaste, blend and scratch.
        per_image: Defective pictures made of each sample.
        seed: Seed of everything random here.

    Returns:
        ``per_image * len(samples)`` pictures: all samples once, in their order, then all again.

    Raises:
        ImageError: A file cannot be read.
    """
    plain = [picture_of(sample) for sample in samples]
    pictures = []
    for copy in range(per_image):
        for i, picture in enumerate(plain):
            kind = kinds[(i + copy) % len(kinds)]
            paste_seed = int(
                hashlib.sha256(f"{seed}:{picture.digest}:{kind}:{copy}".encode()).hexdigest()[:12], 16
            )
            donor = plain[_donor(samples, i, paste_seed)]
            pictures.append(picture.then(PasteDefect(kind, paste_seed, donor.path, donor.digest)))
    return tuple(pictures)


def _donor(samples: Sequence[Sample], i: int, seed: int) -> int:
    """Another sample, preferably of another group; the sample itself where it is alone."""
    order = np.random.default_rng(seed).permutation(len(samples)).tolist()
    group = samples[i].group
    strangers = (j for j in order if j != i and (group is None or samples[j].group != group))
    others = (j for j in order if j != i)
    return int(next(strangers, next(others, i)))
