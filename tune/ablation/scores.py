"""From the folder of a finished cell to the scores of its test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from nfbmr.data.samples import GOOD
from nfbmr.errors import NfbmrError
from nfbmr.evaluation.metrics import PixelHistograms, pixel_histograms
from nfbmr.finalize import Masks
from nfbmr.methods.registry import networks_of
from nfbmr.paths import RunPaths, read_json
from nfbmr.results import read_sets
from nfbmr.scoring.fusion import Scorer
from tune.ablation.cell import Cell
from tune.tables.cell_scores import CellScores


def read_scores(cell: Cell, paths: RunPaths) -> CellScores:
    """A finished cell's scores of its test images.

    Raises:
        OutputError: They are missing or damaged.
    """
    scores = CellScores.read(
        paths.scores, cell.row, cell.category, cell.seed, grouped=bool(read_json(paths.split)["grouped"])
    )
    return replace(scores, pixels=partial(read_pixels, paths))


def read_pixels(paths: RunPaths) -> PixelHistograms | None:
    """How a finished run's pixel scores are distributed; None without masks, or where maps have no positions.

    Raises:
        OutputError: Its maps or its model are missing or damaged.
    """
    model = read_json(paths.model / "model.json")
    if not networks_of(model["config"]["method"]).has_pixel_maps:
        return None
    (test,) = (images for images in read_sets(paths.scores, paths.maps) if images.side == "test")
    maps_NHW = Scorer.from_json(model["scorer"]).fuse(test.maps_NPHW).numpy()
    return pixel_histograms(maps_NHW, test.defective_N.numpy(), Masks(test))


def images_to_time(run: Path, count: int) -> list[Path]:
    """Test images of a finished run that are still there, evenly chosen among all.

    Raises:
        OutputError: Its scores are missing or damaged.
        NfbmrError: None is there.
    """
    paths = RunPaths(run)
    (test,) = (images for images in read_sets(paths.scores, paths.maps) if images.side == "test")
    there = [sample.path for sample in test.samples if sample.path.exists()]
    if not there:
        raise NfbmrError("its test images are not here any more", where=run, fix="put them where they were")
    step = max(1, len(there) // count)
    return there[::step][:count]


def kinds_of(scores: Sequence[CellScores]) -> tuple[str, ...]:
    """Kinds of defect that every cell's test images show; none where there is one alone."""
    by_cell = [{kind for kind in cell.kinds if kind != GOOD} for cell in scores]
    kinds = set.intersection(*by_cell) if by_cell else set()
    return tuple(sorted(kinds)) if len(kinds) > 1 else ()


def of_kind(cell: CellScores, kind: str) -> CellScores:
    """A cell's good images and those with one kind of defect, as if the kind were a category."""
    rows = [i for i, shown in enumerate(cell.kinds) if shown in (GOOD, kind)]
    return replace(
        cell,
        category=kind,
        names=[cell.names[i] for i in rows],
        defective=cell.defective[rows],
        score=cell.score[rows],
        rejected=cell.rejected[rows],
        groups=None if cell.groups is None else [cell.groups[i] for i in rows],
        kinds=[cell.kinds[i] for i in rows],
        pixels=None,
    )
