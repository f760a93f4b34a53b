r"""Whether the images of a set have a direction: grain, threads, rows; from their small pictures alone.

.. math::
    J = \frac{1}{N} \sum_n \frac{\langle \nabla I_n \nabla I_n^T \rangle}{\langle |\nabla I_n|^2 \rangle},
    \qquad \mathrm{coherence} = \frac{\lambda_1 - \lambda_2}{\lambda_1 + \lambda_2}

with the mean over an image's positions, and the eigenvalues of the mean structure tensor J (Bigün & Granlund,
ICCV 1987): 1 where edges run one way in all images, 0 where they run all ways, or those of each image their
own: parts that lie at any angle.

Shapes: N images, H W a small picture.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nfbmr.data.thumbnails import thumbnail
from nfbmr.errors import ImageError

ONE_WAY = 0.5
"""Coherence from which images have a direction: edges are three times as strong across it as along it."""
_LOOKED_AT = 60


def coherence(paths: Sequence[Path]) -> float:
    """How much the edges of a set's images run one way, from 0 to 1; 0 where no image has an edge.

    Args:
        paths: Image files; 60 at most are looked at, spread evenly, and those that cannot be read are left
            out: whoever needs their pixels names them.
    """
    total_22 = np.zeros((2, 2))
    for path in paths[:: max(1, math.ceil(len(paths) / _LOOKED_AT))]:
        with contextlib.suppress(ImageError):
            small_HW, _ = thumbnail(path)
            if min(small_HW.shape) < 2:
                continue
            edges_2P = np.asarray(np.gradient(small_HW.astype(np.float64))).reshape(2, -1)
            tensor_22 = edges_2P @ edges_2P.T
            total_22 += tensor_22 / max(float(np.trace(tensor_22)), 1e-12)
    smaller, larger = np.linalg.eigvalsh(total_22)
    return float((larger - smaller) / (larger + smaller)) if larger > 0 else 0.0
