"""Predictions as a table: CSV with a line an image, JSON and Parquet with every region."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from nfbmr.errors import DataError
from nfbmr.paths import atomic
from nfbmr.prediction import Prediction
from nfbmr.scoring.regions import Peak, Region
from nfbmr.text import as_text

_BOX = ("x", "y", "width", "height", "area", "share", "peak")
_PEAK = ("peak", "peak_x", "peak_y")


def write_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    """Write a table; the ending chooses: .csv, .json or .parquet.

    CSV has no lists: it has the number of regions, the largest of them and the peak, a column each.

    Raises:
        DataError: The ending is none of these.
    """
    names = tuple(dict.fromkeys(name for prediction in predictions for name in prediction.components))
    frames = any(prediction.frame is not None for prediction in predictions)
    rows = [full_row(prediction, names, frames=frames) for prediction in predictions]
    with atomic(path) as temporary:
        if path.suffix == ".csv":
            flat = [flat_row(row) for row in rows]
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(flat[0]))
                writer.writeheader()
                writer.writerows(flat)
        elif path.suffix == ".json":
            temporary.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        elif path.suffix == ".parquet":
            _write_parquet(rows, temporary)
        else:
            raise DataError("no such table format", where=path, fix="end the name in .csv, .json or .parquet")


def full_row(prediction: Prediction, components: Sequence[str], *, frames: bool = False) -> dict[str, Any]:
    """A prediction as plain values, regions as a list.

    Args:
        prediction: Prediction of one image.
        components: Score components that get a column, whether or not this image has them.
        frames: Whether there are columns for the number and the time of a video's frame.
    """
    row = asdict(prediction)
    for name in ("components",) if frames else ("components", "frame", "seconds"):
        del row[name]
    row["path"] = None if prediction.path is None else as_text(prediction.path)
    for picture in ("heatmap", "mask"):
        row[picture] = None if row[picture] is None else str(row[picture])
    row["regions"] = None if row["regions"] is None else list(row["regions"])
    return {**row, **{f"{component}_max": prediction.components.get(component) for component in components}}


def flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without lists: of the regions their number and the largest."""
    regions, peak = row["regions"], row["peak"] or {}
    largest = max(regions or [{}], key=lambda region: region.get("area", 0))
    summary = {
        "regions": None if regions is None else len(regions),
        **{f"largest_{name}": largest.get(name) for name in _BOX},
        **dict(zip(_PEAK, (peak.get(name) for name in ("value", "x", "y")), strict=True)),
    }
    plain = {name: value for name, value in row.items() if name not in ("regions", "peak")}
    return {**plain, **summary}


def _write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # The types are given, since the first images may have no region to tell them from.
    types = {"regions": pa.list_(_struct(pa, Region)), "peak": _struct(pa, Peak)}
    columns = {
        name: pa.array([row[name] for row in rows], type=types.get(name))
        for name in (rows[0] if rows else ())
    }
    pq.write_table(pa.table(columns), path)


def _struct(pa: Any, kind: type) -> Any:
    return pa.struct([(f.name, pa.int64() if f.type == "int" else pa.float64()) for f in fields(kind)])
