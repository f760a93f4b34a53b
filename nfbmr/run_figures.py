"""The pictures of a run, drawn from its results."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.images import read_image
from nfbmr.errors import ImageError
from nfbmr.evaluation import embedding, figures, heatmaps
from nfbmr.evaluation.evaluation import Scores
from nfbmr.evaluation.figures import StageCurve
from nfbmr.evaluation.intervals import UNDEFINED, Estimate
from nfbmr.evaluation.kept_pictures import drawn_once
from nfbmr.evaluation.metrics import MaskOf
from nfbmr.scoring.regions import Limit, peak_of, predicted_mask, regions_of

log = logging.getLogger(__name__)


class Drawn(NamedTuple):
    """A picture, as the report shows it."""

    title: str
    path: Path
    caption: str


@dataclass(frozen=True)
class Scene:
    """What the pictures are drawn from.

    Attributes:
        scores: Scores of the test images.
        estimates: Their metrics.
        threshold: Scores above it are rejected.
        history: Metrics by stage, an epoch a row.
        epochs: The epoch kept, by stage.
        embeddings: Features (N, D) of the test images by the name of their space; may be empty.
        confidence: Confidence of the intervals.
        seed: Seed of the resamples.
        caption: Data set, method, split, seed, and whether the test set was peeked at.
        typical: Median score of good validation images.
        depth: Bits of the values of deep image files.
    """

    scores: Scores
    estimates: Mapping[str, Estimate]
    threshold: float
    history: Mapping[str, Sequence[Mapping[str, float]]]
    epochs: Mapping[str, int]
    embeddings: Mapping[str, NDArray[Any]]
    confidence: float
    seed: int
    caption: str
    typical: float = math.nan
    depth: int | None = None

    @property
    def limit(self) -> Limit:
        """What image scores are compared with."""
        return Limit(self.typical, self.threshold)


def draw_curves(scene: Scene, folder: Path) -> list[Drawn]:
    """ROC, precision and recall, scores, AUROC by kind, losses, t-SNE: what these images allow."""
    folder.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {"threshold": scene.threshold, "caption": scene.caption}
    band: dict[str, Any] = {**about, "confidence": scene.confidence, "seed": scene.seed}
    auroc = scene.estimates.get("image_auroc", UNDEFINED)
    ap = scene.estimates.get("image_ap", UNDEFINED)
    drawn = [
        Drawn(
            "ROC curve",
            drawn_once(figures.roc, folder / "roc.png", scene.scores, auroc=auroc, **band),
            f"Image AUROC {auroc}. The band holds {scene.confidence:.0%} of the resampled curves.",
        ),
        Drawn(
            "Precision and recall",
            drawn_once(
                figures.precision_recall, folder / "precision-recall.png", scene.scores, ap=ap, **band
            ),
            f"Average precision {ap}.",
        ),
        Drawn(
            "Scores by kind of defect",
            drawn_once(figures.histogram, folder / "scores.png", scene.scores, **about),
            "The threshold was set on good validation images.",
        ),
    ]
    if len(scene.scores.kinds) > 1:
        path = drawn_once(figures.defect_bars, folder / "kinds.png", scene.estimates, caption=scene.caption)
        drawn.append(Drawn("AUROC by kind of defect", path, "Each kind against all good test images."))
    curves = [stage_curve(name, rows, scene.epochs.get(name)) for name, rows in scene.history.items() if rows]
    if curves:
        path = drawn_once(figures.losses, folder / "losses.png", curves, caption=scene.caption)
        drawn.append(
            Drawn(
                "Training",
                path,
                "The epoch kept: of those validation cannot tell apart, that of least held-out loss.",
            )
        )
    if scene.embeddings:
        path = drawn_once(
            embedding.tsne,
            folder / "tsne.png",
            scene.embeddings,
            scene.scores.defects,
            seed=scene.seed,
            caption=scene.caption,
        )
        spaces = "S: backbone features; T: features mapped to the target domain; NF: the flow's latents."
        drawn.append(Drawn("t-SNE of the feature spaces", path, f"{spaces} Means over positions."))
    return drawn


def stage_curve(name: str, rows: Sequence[Mapping[str, float]], selected: int | None) -> StageCurve:
    """A stage's history as the figure takes it."""
    validated = {int(row["epoch"]): row["validation_auroc"] for row in rows if "validation_auroc" in row}
    return StageCurve(
        name=name,
        epochs=[int(row["epoch"]) for row in rows],
        loss=[row["loss"] for row in rows],
        selected=selected,
        validation=validated or None,
    )


@dataclass(frozen=True)
class HeatMaps:
    """Maps to draw, and their colours.

    Attributes:
        of: An image's map (H, W), by its number.
        limits: Values where colours begin and end.
        scale: What these are, in words.
        limit: What positions are compared with; None where there is no predicted mask.
    """

    of: Callable[[int], NDArray[np.float32]]
    limits: tuple[float, float]
    scale: str
    limit: Limit | None = None


def draw_heatmaps(
    scene: Scene,
    maps: HeatMaps,
    paths: Sequence[Path],
    mask_of: MaskOf,
    folder: Path,
    *,
    count: int,
) -> tuple[list[Drawn], list[dict[str, Any]]]:
    """Heat maps over the images that tell most: best, worst and borderline, all in one colour scale.

    Args:
        scene: Scores and caption.
        maps: Maps of the test images.
        paths: Files of the test images.
        mask_of: Their masks.
        folder: Where the pictures go.
        count: Images of each sort.

    Returns:
        The pictures; and of each image in them its name, kind, score, the score as people read it, its
        regions and its peak (nothing where there is no threshold for positions).
    """
    vmin, vmax = maps.limits
    said = {
        "best": "Defects that score highest, good parts that score lowest.",
        "worst": "Defects that score lowest, good parts that score highest.",
        "borderline": "Nearest to the threshold.",
    }
    predicted = (
        "" if maps.limit is None else "; in magenta: the predicted mask, and where it begins on the scale"
    )
    outlines = f" Outlined in cyan: the ground truth{predicted}."
    drawn: list[Drawn] = []
    rows: list[dict[str, Any]] = []
    for sort, numbers in heatmaps.select_examples(scene.scores, scene.threshold, count).items():
        each = (_shown(scene, i, maps, paths[i], mask_of(i)) for i in numbers)
        shown = [example for example in each if example is not None]
        if not shown:
            continue
        if maps.limit is not None:
            rows += [_row(sort, example, scene, maps.limit) for example in shown]
        path = drawn_once(
            heatmaps.heatmap_grid,
            folder / f"heatmaps-{sort}.png",
            shown,
            title=sort.capitalize(),
            vmin=vmin,
            vmax=vmax,
            threshold=scene.threshold,
            pixel_threshold=math.nan if maps.limit is None else maps.limit.threshold,
            scale=maps.scale,
            caption=scene.caption,
            kinds=scene.scores.kinds,
        )
        drawn.append(Drawn(f"Heat maps: {sort}", path, f"{said[sort]}{outlines}"))
    return drawn, rows


def _shown(
    scene: Scene, i: int, maps: HeatMaps, path: Path, mask: NDArray[np.bool_] | None
) -> heatmaps.Shown | None:
    scores = scene.scores
    try:
        pixels, map_HW = read_image(path, scene.depth), maps.of(i)
    except ImageError as error:
        log.warning("left out of the heat maps: %s", error.what)
        return None
    return heatmaps.Shown(
        name=scores.names[i],
        defect=scores.defects[i],
        score=float(scores.score[i]),
        pixels=pixels,
        map_HW=map_HW,
        mask=mask,
        predicted=None
        if maps.limit is None
        else predicted_mask(map_HW, pixels.shape[:2], maps.limit.threshold),
    )


def _row(sort: str, shown: heatmaps.Shown, scene: Scene, limit: Limit) -> dict[str, Any]:
    """An image and its regions, for a table."""
    size = shown.pixels.shape[:2]
    peak = peak_of(shown.map_HW, size, limit)
    return {
        "sort": sort,
        "name": shown.name,
        "defect": shown.defect,
        "score": shown.score,
        "relative_score": scene.limit.relative(shown.score),
        "regions": [asdict(region) for region in regions_of(shown.map_HW, size, limit)],
        "peak": None if peak is None else asdict(peak),
    }
