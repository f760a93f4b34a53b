#!/usr/bin/env bash
# safetensors 0.8.0, numpy 2.4.6, scipy 1.17.1, scikit-learn 1.9.1
# safetensors.numpy writes an array's memory, not its values: a Fortran-ordered array comes
# back with the right shape and scrambled values, without a word. The torch door refuses such
# a tensor ("non contiguous"); the NumPy door's docstring asks for contiguous arrays, yet
# nothing checks. scipy.linalg.cholesky and sklearn's PCA.components_ are Fortran-ordered, so
# the whitening of a Gaussian or a PCA of features is what gets hit.
# Guess: the values survive, or saving is refused.
# Seen:
#   saved  [[0. 3.]  [1. 4.]  [2. 5.]]
#   loaded [[0. 1.]  [2. 3.]  [4. 5.]]
#   Cholesky factor, saved == loaded: False
#   PCA components, saved == loaded: False
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" safetensors==0.8.0 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
from safetensors.numpy import load, save
from scipy.linalg import cholesky
from sklearn.decomposition import PCA


def round_trip(array):
    loaded = load(save({"a": array}))["a"]
    assert loaded.shape == array.shape and loaded.dtype == array.dtype, "the behaviour changed"
    return loaded


transposed = np.arange(6.0).reshape(2, 3).T
print("saved ", str(transposed).replace("\n", " "))
print("loaded", str(round_trip(transposed)).replace("\n", " "))
features = np.random.default_rng(0).normal(size=(50, 4))
factor = cholesky(np.cov(features, rowvar=False))
components = PCA().fit(features).components_
same = [np.array_equal(round_trip(a), a) for a in (transposed, factor, components)]
print("Cholesky factor, saved == loaded:", same[1])
print("PCA components, saved == loaded:", same[2])
assert same == [False, False, False], "the behaviour changed"
PY
