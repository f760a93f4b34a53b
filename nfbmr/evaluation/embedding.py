"""Feature spaces in two dimensions: the picture that shows whether defects stand apart.

Shapes: N images, D feature channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.samples import GOOD
from nfbmr.evaluation.intervals import Floats
from nfbmr.evaluation.style import (
    DEFECT_COLOURS,
    FAINT,
    GOOD_COLOUR,
    INK,
    colours,
    dress,
    lettering,
    markers,
    new_figure,
    save,
)

Labelled = tuple[NDArray[Any], NDArray[np.bool_]]
"""Features (N, D), and which of the N images are defective."""


def tsne(
    features: Mapping[str, NDArray[Any]],
    defects: Sequence[str],
    path: Path,
    *,
    most: int = 1000,
    seed: int = 0,
    caption: str = "",
) -> Path:
    """t-SNE of the same images in several feature spaces, a panel each (Zhang et al. 2024, figure 7).

    Args:
        features: Name of the space to features (N, D); ``{"S": ..., "T": ..., "NF": ...}`` for the paper's
            figure.
        defects: Kind of each image.
        path: The picture to write.
        most: Draw at most this many images, a seeded sample.
        seed: Seed of the sample and of t-SNE.
        caption: What the images are.
    """
    rows = np.arange(len(defects))
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))
    kind_N = np.asarray(defects, dtype=object)[rows]
    colour, marker = colours(defects), markers(defects)
    figure = new_figure(3.4 * len(features), 4.1, caption)
    panels = figure.subplots(1, len(features), squeeze=False)[0]
    for axes, (name, values_ND) in zip(panels, features.items(), strict=True):
        dress(axes, title=f"t-SNE, {name}", grid="none")
        axes.set(xticks=[], yticks=[])
        axes.set_aspect("equal", adjustable="datalim")
        place_N2 = embedded(np.asarray(values_ND)[rows], seed)
        # Good last but one would hide rare defects: it is drawn first, below everything.
        for kind in (GOOD, *sorted(set(kind_N) - {GOOD})):
            own_N = kind_N == kind
            if own_N.any():
                axes.scatter(
                    *place_N2[own_N].T, s=14, color=colour[kind], marker=marker[kind], linewidths=0.3,
                    edgecolors="white", label=lettering(f"{kind} ({own_N.sum()})", 28),
                )  # fmt: skip
        axes.margins(0.06)
    handles, labels = panels[0].get_legend_handles_labels()
    # About fourteen letters an inch, and a marker before each label.
    fitting = max(1, int(3.4 * len(features) * 14 / (max(map(len, labels), default=0) + 6)))
    columns = math.ceil(len(labels) / math.ceil(len(labels) / fitting)) if labels else 1
    figure.legend(
        handles, labels, loc="outside lower left", ncols=columns, fontsize=8, frameon=False,
        labelcolor=INK, handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip
    return save(figure, path)


def tsne_grid(
    spaces: Mapping[str, Mapping[str, Labelled]],
    path: Path,
    *,
    most: int = 1000,
    seed: int = 0,
    caption: str = "",
) -> Path:
    """t-SNE of several data sets in several spaces: a row a space, a column a data set.

    Args:
        spaces: Name of the space, then of the data set, to features (N, D) and whether each is defective.
        path: The picture to write.
        most: Draw at most this many images of each, a seeded sample.
        seed: Seed of the samples and of t-SNE.
        caption: What the images are.
    """
    columns = list(dict.fromkeys(name for by_set in spaces.values() for name in by_set))
    figure = new_figure(2.2 * len(columns) + 0.7, 2.2 * len(spaces) + 0.9, caption)
    panels = figure.subplots(len(spaces), len(columns), squeeze=False)
    for line, (space, by_set) in zip(panels, spaces.items(), strict=True):
        for axes, name in zip(line, columns, strict=True):
            dress(axes, title=name if axes in panels[0] else "", grid="none")
            axes.set(xticks=[], yticks=[])
            if axes is line[0]:
                axes.set_ylabel(
                    lettering(space), fontsize=11, fontweight="bold", color=INK, rotation=0, labelpad=16
                )
            if name not in by_set:
                axes.text(
                    0.5, 0.5, "not run", ha="center", va="center", transform=axes.transAxes, color=FAINT
                )
                continue
            values_ND, defective_N = by_set[name]
            rows = np.arange(len(defective_N))
            if len(rows) > most:
                rows = np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))
            place_N2 = embedded(np.asarray(values_ND)[rows], seed)
            for bad, colour in ((False, GOOD_COLOUR), (True, DEFECT_COLOURS[0])):
                own_N = np.asarray(defective_N)[rows] == bad
                axes.scatter(*place_N2[own_N].T, s=9, color=colour, linewidths=0.2, edgecolors="white")
            axes.margins(0.06)
    for word, colour in (("good", GOOD_COLOUR), ("defective", DEFECT_COLOURS[0])):
        panels[0][0].scatter([], [], s=14, color=colour, label=word)
    figure.legend(loc="outside lower left", ncols=2, fontsize=8, frameon=False, labelcolor=INK)
    return save(figure, path)


def embedded(values_ND: NDArray[Any], seed: int) -> Floats:
    """Two dimensions by t-SNE; what few images there are for it stand by their principal components."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    values = values_ND.reshape(len(values_ND), -1).astype(np.float64)
    values -= values.mean(axis=0, keepdims=True) if len(values) else 0.0
    width = min(50, *values.shape)
    place_N2 = np.zeros((len(values), 2))
    if width < 1 or not np.any(values):
        return place_N2
    reduced = PCA(width, svd_solver="full" if width == min(values.shape) else "randomized", random_state=seed)
    values = reduced.fit_transform(values)
    if len(values) < 6 or width < 2:
        place_N2[:, : min(2, width)] = values[:, :2]
        return place_N2
    perplexity = min(30.0, (len(values) - 1) / 3)
    embed = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed)
    return np.asarray(embed.fit_transform(values), dtype=np.float64)
