#!/usr/bin/env bash
# ray 2.60.0 (data), pyarrow 25.0.0, pandas 3.1.1
# Scores with one NaN: mean(), sum() and std() of a Ray dataset are numbers where its blocks came from pandas, and None where the same
# column came from Arrow, Parquet or Python. max() and min() leave the NaN out in both. So a column's mean is None while its maximum is a
# number, nothing is NaN, and the same scores written to Parquet and read back lose their mean.
# Guess: the same for every kind of block: NaN, as in NumPy, or left out, as in pandas.
# Seen (scores 0.5, NaN, 0.25, 0.75):
#                 max   mean  std   sum
#   pandas        0.75  0.5   0.25  1.5
#   Arrow         0.75  None  None  None
#   Parquet       0.75  None  None  None
#   Python items  0.75  None  None  None
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" 'ray[data]==2.60.0' pyarrow==25.0.0 pandas==3.1.1 numpy==2.4.6
RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0 "$work/venv/bin/python" -W ignore - <<'PY'
import logging
import pathlib
import tempfile

import pandas
import pyarrow
import pyarrow.parquet
import ray
from ray.data.aggregate import Max, Mean, Std, Sum

ray.init(num_cpus=4, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
logging.getLogger("ray.data").setLevel(logging.ERROR)
scores = [0.5, float("nan"), 0.25, 0.75]
table = pyarrow.table({"score": scores})
path = str(pathlib.Path(tempfile.mkdtemp()) / "scores.parquet")
pyarrow.parquet.write_table(table, path)
datasets = {
    "pandas": ray.data.from_pandas(pandas.DataFrame({"score": scores})),
    "Arrow": ray.data.from_arrow(table),
    "Parquet": ray.data.read_parquet(path),
    "Python items": ray.data.from_items([{"score": score} for score in scores]),
}
seen = {}
for name, dataset in datasets.items():
    numbers = dataset.aggregate(*(of("score", alias_name=of.__name__) for of in (Max, Mean, Std, Sum)))
    seen[name] = list(numbers.values())
    print(f"{name:14s}", *seen[name], flush=True)
ray.shutdown()
assert seen.pop("pandas") == [0.75, 0.5, 0.25, 1.5], "the behaviour changed"
assert all(numbers == [0.75, None, None, None] for numbers in seen.values()), "the behaviour changed"
PY
