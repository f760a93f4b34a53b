#!/usr/bin/env bash
# pyarrow 25.0.0
# Grouping, value_counts and unique tell NaN from NaN and zero from zero: a NaN with its sign
# bit set is another value than one without, and 0.0 another than -0.0. math.nan has no sign,
# but NumPy's inf - inf has one on x86, as -nan has everywhere. A score may well be -0.0. One failed metric then makes two rows of a report, and pc.equal says otherwise.
# Guess: NaN is one group, zero is one group (as in pandas).
# Seen:
#   value_counts   0.0: 1, -0.0: 1, nan: 1, nan: 1
#   groups         4 (pandas: 2)
#   equal(0.0, -0.0): True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" pyarrow==25.0.0 pandas==3.1.1
"$work/venv/bin/python" -W ignore - <<'PY'
import math

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

values = [0.0, -0.0, math.nan, -math.nan]
array = pa.array(values, pa.float64())
counts = pc.value_counts(array).to_pylist()
groups = pa.table({"score": array}).group_by("score").aggregate([([], "count_all")])
print("value_counts  ", ", ".join(f"{c['values']}: {c['counts']}" for c in counts))
in_pandas = pd.Series(values).groupby(pd.Series(values), dropna=False).size()
print(f"groups         {groups.num_rows} (pandas: {len(in_pandas)})")
print("equal(0.0, -0.0):", pc.equal(array[0], array[1]))
assert len(counts) == 4 and groups.num_rows == 4 and len(in_pandas) == 2, "the behaviour changed"
assert pc.equal(array[0], array[1]).as_py(), "the behaviour changed"
PY
