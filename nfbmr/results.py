"""What a method says of a set of images, in memory and on disk.

Shapes: N images, P score components, H W the feature map.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nfbmr.data.samples import GOOD, Sample, units_of
from nfbmr.errors import CheckpointError, OutputError
from nfbmr.paths import atomic
from nfbmr.scoring.fusion import REDUCTIONS, Scorer, reduced
from nfbmr.scoring.normalisation import UnitMaps
from nfbmr.tensors import read_tensors, write_tensors
from nfbmr.text import as_text

SYNTHETIC = "synthetic"
"""Kind of defect of the defects that were pasted on good validation images."""

SYNTHETIC_WORTH = 8
"""Known defects that all synthetic ones together count for, where there are both: as many as are the fewest
that are taken (:data:`nfbmr.config.FEWEST_KNOWN`), so that what is real never counts for less than half."""


@dataclass(frozen=True)
class ScoredImages:
    """Score components of a set of images.

    Attributes:
        side: ``validation`` or ``test``.
        samples: The images.
        maps_NPHW: Their score components.
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
        """Maps, units and weights of the defective images."""
        return defective_maps(
            self.maps_NPHW[self.defective_N], tuple(s for s in self.samples if not s.is_good)
        )


def defective_maps(maps_MPHW: Tensor, samples: Sequence[Sample]) -> UnitMaps:
    """Maps of defective images, with the unit that each shows and what each counts for."""
    return UnitMaps(maps_MPHW, units_of(samples), weights_of(samples))


def weights_of(samples: Sequence[Sample]) -> tuple[float, ...] | None:
    r"""What each defective image counts for in the AUROC that chooses; None where all count alike.

    Of m synthetic and n known defects a known one counts for 1 and a synthetic one for w / m, with w =
    :data:`SYNTHETIC_WORTH`, so that the AUROC is

    .. math:: A = \frac{n A_{known} + w A_{synthetic}}{n + w}

    Synthetic defects are many, so their AUROC varies little, but it need not be that of real ones; known
    defects are of the right sort, but few. Good images keep a weight of 1.

    Example:
        >>> dent, pasted = Sample(Path("a"), "a", "dent"), Sample(Path("b"), "b", SYNTHETIC)
        >>> weights_of([pasted, pasted, dent])
        (4.0, 4.0, 1.0)
        >>> weights_of([dent, dent]) is None
        True
    """
    synthetic = sum(s.defect == SYNTHETIC for s in samples)
    if not synthetic or all(s.is_good or s.defect == SYNTHETIC for s in samples):
        return None
    return tuple(SYNTHETIC_WORTH / synthetic if s.defect == SYNTHETIC else 1.0 for s in samples)


def write_maps(path: Path, sets: Sequence[ScoredImages]) -> None:
    """Keep the maps, so that another fusion needs no retraining."""
    tensors = {}
    for images in sets:
        tensors[f"{images.side}/maps"] = images.maps_NPHW
        tensors |= {f"{images.side}/{space}": values_ND for space, values_ND in images.embeddings.items()}
    write_tensors(path, tensors)


def write_scores(path: Path, sets: Sequence[ScoredImages], scorer: Scorer, *, test_peeked: bool) -> None:
    """A row an image, as Parquet: who it is, its score and decision, each component by each reduction."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{**row, "test_peeked": test_peeked} for images in sets for row in _rows(images, scorer)]
    table = pa.Table.from_pylist(rows)
    with atomic(path) as temporary:
        pq.write_table(table, temporary)


def _rows(images: ScoredImages, scorer: Scorer) -> list[dict[str, Any]]:
    score_N = scorer.score(images.maps_NPHW).tolist()
    components = {
        f"{component}_{reduction}": reduced(images.maps_NPHW[:, p], reduction, scorer.topk).tolist()
        for p, component in enumerate(scorer.components)
        for reduction in REDUCTIONS
    }
    return [
        {
            "side": images.side,
            "name": as_text(sample.name),
            # Bytes, since Arrow's strings are UTF-8 and a file name need not be.
            "path": os.fsencode(sample.path),
            "mask": os.fsencode(sample.masks[0]) if sample.masks else None,
            "masks": [os.fsencode(mask) for mask in sample.masks],
            "defect": sample.defect,
            "group": sample.group,
            "score": score_N[i],
            "rejected": score_N[i] > scorer.threshold,
            "relative_score": scorer.limit.relative(score_N[i]),
            **{name: values[i] for name, values in components.items()},
        }
        for i, sample in enumerate(images.samples)
    ]


def _masks(row: dict[str, Any]) -> tuple[Path, ...]:
    """The masks that a row names; runs of older versions name one at most."""
    named = row["masks"] if "masks" in row else [mask for mask in (row["mask"],) if mask is not None]
    return tuple(Path(os.fsdecode(mask)) for mask in named)


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
                _masks(row),
                row["group"],
            )
            for row in rows
            if row["side"] == side
        )
        of_side = {
            name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{side}/")
        }
        maps_NPHW = of_side.pop("maps")
        sets.append(ScoredImages(side, samples, maps_NPHW, of_side))
    return tuple(sets)


def synthetic_sample(sample: Sample) -> Sample:
    """The sample that stands for a good image with a synthetic defect on it."""
    return Sample(sample.path, sample.name, SYNTHETIC, (), sample.group)


def known_sample(sample: Sample) -> Sample:
    """A known defect as it stands among validation images; its kind is never taken for a synthetic one's."""
    return replace(sample, defect=f"real {SYNTHETIC}") if sample.defect == SYNTHETIC else sample


def kinds_of(samples: Iterable[Sample]) -> dict[str, int]:
    """How many images show each kind, in alphabetical order."""
    return dict(sorted(Counter(sample.defect for sample in samples).items()))


def side_counts(samples: Sequence[Sample]) -> dict[str, int]:
    """Good and defective images among `samples`."""
    good = sum(s.defect == GOOD for s in samples)
    return {"good": good, "defective": len(samples) - good}
