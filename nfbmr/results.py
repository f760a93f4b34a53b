"""What a method says of a set of images, in memory and on disk.

Shapes: N images, P score parts, H W the feature map.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfbmr.data.samples import GOOD, Sample, units_of
from nfbmr.errors import CheckpointError, OutputError
from nfbmr.paths import atomic
from nfbmr.scoring.fusion import REDUCTIONS, Scorer, UnitMaps, reduced
from nfbmr.tensors import read_tensors, write_tensors
from nfbmr.wording import as_text

SYNTHETIC = "synthetic"
"""Kind of defect of the defects that were pasted on good validation images."""


@dataclass(frozen=True)
class ScoredImages:
    """Score parts of a set of images.

    Attributes:
        side: ``validation`` or ``test``.
        samples: The images.
        maps_NPHW: Their score parts.
        embeddings: Features (N, D) by the name of their space, for t-SNE; may be empty.
    """

    side: str
    samples: tuple[Sample, ...]
    maps_NPHW: Tensor
    embeddings: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def defective_N(self) -> Tensor:
        """Which images show a defect."""
        return torch.tensor([not s.is_good for s in self.samples], dtype=torch.bool)

    @property
    def good(self) -> UnitMaps:
        """Maps and units of the good images."""
        return UnitMaps(self.maps_NPHW[~self.defective_N], units_of(s for s in self.samples if s.is_good))

    @property
    def defective(self) -> UnitMaps:
        """Maps and units of the defective images."""
        return UnitMaps(self.maps_NPHW[self.defective_N], units_of(s for s in self.samples if not s.is_good))


def write_maps(path: Path, sets: Sequence[ScoredImages]) -> None:
    """Keep the maps, so that another fusion needs no retraining."""
    write_tensors(path, {name: tensor for images in sets for name, tensor in _tensors(images)})


def write_scores(path: Path, sets: Sequence[ScoredImages], scorer: Scorer, *, test_peeked: bool) -> None:
    """A row an image, as Parquet: who it is, its score and decision, each part by each reduction."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{**row, "test_peeked": test_peeked} for images in sets for row in _rows(images, scorer)]
    table = pa.Table.from_pylist(rows)
    with atomic(path) as temporary:
        pq.write_table(table, temporary)


def _rows(images: ScoredImages, scorer: Scorer) -> list[dict[str, Any]]:
    score_N = scorer.score(images.maps_NPHW).tolist()
    parts = {
        f"{part}_{reduction}": reduced(images.maps_NPHW[:, p], reduction, scorer.topk).tolist()
        for p, part in enumerate(scorer.parts)
        for reduction in REDUCTIONS
    }
    return [
        {
            "side": images.side,
            "name": as_text(sample.name),
            # Bytes, since Arrow's strings are UTF-8 and a file name need not be.
            "path": os.fsencode(sample.path),
            "mask": None if sample.mask is None else os.fsencode(sample.mask),
            "defect": sample.defect,
            "group": sample.group,
            "score": score_N[i],
            "rejected": score_N[i] > scorer.threshold,
            **{name: values[i] for name, values in parts.items()},
        }
        for i, sample in enumerate(images.samples)
    ]


def read_sets(scores: Path, maps: Path) -> tuple[ScoredImages, ...]:
    """Read back what :func:`write_scores` and :func:`write_maps` kept.

    Raises:
        OutputError: One of the files is missing or damaged.
    """
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(scores).to_pylist()
        tensors = read_tensors(maps)
    except (OSError, ValueError, CheckpointError) as error:
        raise OutputError(
            f"the run's scores cannot be read ({error})", where=scores.parent, fix="is the run finished?"
        ) from error
    sets = []
    for side in dict.fromkeys(name.partition("/")[0] for name in tensors):
        samples = tuple(
            Sample(
                Path(os.fsdecode(row["path"])),
                row["name"],
                row["defect"],
                None if row["mask"] is None else Path(os.fsdecode(row["mask"])),
                row["group"],
            )
            for row in rows
            if row["side"] == side
        )
        own = {
            name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{side}/")
        }
        maps_NPHW = own.pop("maps")
        sets.append(ScoredImages(side, samples, maps_NPHW, own))
    return tuple(sets)


def _tensors(images: ScoredImages) -> Iterator[tuple[str, Tensor]]:
    yield f"{images.side}/maps", images.maps_NPHW
    for space, values_ND in images.embeddings.items():
        yield f"{images.side}/{space}", values_ND


def synthetic_sample(sample: Sample) -> Sample:
    """The sample that stands for a good image with a synthetic defect on it."""
    return Sample(sample.path, sample.name, SYNTHETIC, None, sample.group)


def side_counts(samples: Sequence[Sample]) -> dict[str, int]:
    """Good and defective images among `samples`."""
    good = sum(s.defect == GOOD for s in samples)
    return {"good": good, "defective": len(samples) - good}
