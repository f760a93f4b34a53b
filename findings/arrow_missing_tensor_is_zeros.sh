#!/usr/bin/env bash
# pyarrow 25.0.0
# A missing entry in a column of fixed-shape tensors becomes a tensor of zeros in
# to_numpy_ndarray() and to_tensor(), without a word; so does an outer join's missing side or
# a take() with a missing index. A feature map of zeros is a valid one: the image that was
# never extracted gets a score, and not a low one. A plain float column turns null into NaN.
# Guess: it raises, or gives NaN as to_numpy() of a float column does.
# Seen:
#   null_count 1; the missing map: sum 0.0, any NaN: False
#   float column: [ 1. nan]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" pyarrow==25.0.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import pyarrow as pa

maps = np.ones((2, 3, 4, 4), np.float32)
column = pa.FixedShapeTensorArray.from_numpy_ndarray(maps).take(pa.array([0, None, 1]))
dense = column.to_numpy_ndarray()
print(f"null_count {column.null_count}; the missing map: sum {dense[1].sum()}, any NaN: {np.isnan(dense).any()}")
plain = pa.array([1.0, None]).to_numpy(zero_copy_only=False)
print("float column:", plain)
assert column.null_count == 1 and not dense[1].any() and np.isnan(plain[1]), "the behaviour changed"
assert not np.asarray(column.to_tensor())[1].any(), "the behaviour changed"
PY
