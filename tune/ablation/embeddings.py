"""The feature spaces of an ablation's cells by t-SNE, as in figure 7 of the NF-BMR paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nfbmr.errors import OutputError
from nfbmr.evaluation.embedding import Labelled, tsne_grid
from nfbmr.paths import RunPaths
from nfbmr.results import read_sets
from tune.ablation.cell import Cell
from tune.ablation.plan import AblationPlan

_ORDER = ("S", "T", "NF")


def draw_spaces(plan: AblationPlan, cells: Sequence[Cell], path: Path, caption: str) -> Path | None:
    """Draw every space that finished cells of the first seed have; None where there is none.

    Source features stand under the first row that has them.

    Args:
        plan: What was asked.
        cells: All of it.
        path: The picture to write.
        caption: What the numbers are of.
    """
    spaces: dict[str, dict[str, Labelled]] = {}
    for cell in cells:
        paths = RunPaths(cell.task.folder)
        if cell.seed != plan.config.seed or not paths.summary.exists():
            continue
        try:
            sets = read_sets(paths.scores, paths.maps)
        except OutputError:
            continue
        (test,) = (images for images in sets if images.side == "test")
        for space, values_ND in test.embeddings.items():
            by_category = spaces.setdefault(space, {})
            by_category.setdefault(
                cell.category or "all images", (values_ND.numpy(), test.defective_N.numpy())
            )
    if not spaces:
        return None
    ordered = sorted(
        spaces, key=lambda space: (_ORDER.index(space) if space in _ORDER else len(_ORDER), space)
    )
    return tsne_grid(
        {space: spaces[space] for space in ordered}, path, seed=plan.config.seed, caption=caption
    )
