"""What one cell of a table says of its test images, image by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.samples import GOOD
from nfbmr.errors import OutputError
from nfbmr.evaluation.intervals import Floats
from nfbmr.evaluation.metrics import PixelHistograms


@dataclass(frozen=True)
class CellScores:
    """What one cell says of its test images.

    Attributes:
        row: Name of the row.
        category: None where the data set has no categories.
        seed: Seed of the weights.
        names: The images, (N,): what is paired.
        defective: True for defective images, (N,).
        score: Higher is more anomalous, (N,).
        rejected: Whether the score is above the cell's threshold, (N,).
        groups: The part each image shows, where the split keeps parts together.
        kinds: Kind of defect of each image, where that is known.
        pixels: Gives the histograms that metrics of pixels need; they are large, and read when they are used.
    """

    row: str
    category: str | None
    seed: int
    names: Sequence[str]
    defective: NDArray[np.bool_]
    score: Floats
    rejected: NDArray[np.bool_]
    groups: Sequence[str | None] | None = None
    kinds: Sequence[str] = ()
    pixels: Callable[[], PixelHistograms | None] | None = None

    @classmethod
    def read(cls, file: Path, row: str, category: str | None, seed: int, *, grouped: bool) -> Self:
        """The test images of a file that :func:`nfbmr.results.write_scores` wrote.

        Args:
            file: Parquet.
            row: Name of the row.
            category: None where the data set has no categories.
            seed: Seed of the weights.
            grouped: Whether the split keeps the images of a part together.

        Raises:
            OutputError: It is missing or damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = ["side", "name", "defect", "group", "score", "rejected"]
        try:
            images = [
                image for image in pq.read_table(file, columns=columns).to_pylist() if image["side"] == "test"
            ]
        except (OSError, ValueError, pa.ArrowException) as error:
            raise OutputError(
                f"scores cannot be read ({type(error).__name__})", where=file, fix="run the cell again"
            ) from error
        return cls(
            row=row,
            category=category,
            seed=seed,
            names=[image["name"] for image in images],
            defective=np.asarray([image["defect"] != GOOD for image in images], dtype=np.bool_),
            score=np.asarray([image["score"] for image in images], dtype=np.float64),
            rejected=np.asarray([image["rejected"] for image in images], dtype=np.bool_),
            groups=[image["group"] for image in images] if grouped else None,
            kinds=[image["defect"] for image in images],
        )

    @property
    def parts(self) -> tuple[int, int]:
        """Good and defective parts: groups, and images without one."""
        groups = self.groups or [None] * len(self.names)
        parts = {True: set[object](), False: set[object]()}
        for name, group, bad in zip(self.names, groups, self.defective.tolist(), strict=True):
            parts[bad].add(name if group is None else ("group", group))
        return len(parts[False]), len(parts[True])

    def only(self, names: Set[str]) -> Self:
        """The images of these names alone."""
        kept = [i for i, name in enumerate(self.names) if name in names]
        return replace(
            self,
            names=[self.names[i] for i in kept],
            defective=self.defective[kept],
            score=self.score[kept],
            rejected=self.rejected[kept],
            groups=None if self.groups is None else [self.groups[i] for i in kept],
            kinds=[self.kinds[i] for i in kept] if self.kinds else (),
            pixels=None,
        )
