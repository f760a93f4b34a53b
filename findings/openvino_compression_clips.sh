#!/usr/bin/env bash
# openvino 2026.4.1, onnx 1.23.2
# save_model() stores constants in float16 unless told otherwise, and clips what float16 does not hold: 1e5 and 1e38 become
# 65504, 1e-9 becomes 0, of up to three quarters of a constant's values, without a warning. A constant that is nearly all out of range
# stays in float32. Reciprocal variances (1e5 where a channel hardly moves), distances' weights and epsilons are such values: a score
# that divides by a variance of 1e-9 becomes infinite.
# Guess: constants with values out of range are left in float32.
# Seen (a constant of 1001 values, of which some are out of range; the model multiplies ones by it):
#   one 1e5        65504        one 1e-9        0
#   700 of 1e5     65504        700 of 1e-9     0
#   all 1e5        100000       all 1e-9        1e-09
#   x / 1e-9, the constant stored beside 1000 others of 0.1: inf
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import pathlib
import tempfile

import numpy as np
import openvino
from onnx import TensorProto, helper, numpy_helper

folder = pathlib.Path(tempfile.mkdtemp())
core = openvino.Core()


def saved(values, operator="Mul"):
    """First output of ones * values, of the model as save_model() stores it."""
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [len(values)]) for name in "xy"]
    weights = numpy_helper.from_array(np.array(values, np.float32), "w")
    graph = helper.make_graph([helper.make_node(operator, ["x", "w"], ["y"])], "g", [shapes[0]], [shapes[1]], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    openvino.save_model(core.read_model(model.SerializeToString()), folder / "m.xml")
    compiled = core.compile_model(core.read_model(folder / "m.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return float(compiled([np.ones(len(values), np.float32)])[0][0])


seen = {}
for value in (1e5, 1e-9):
    for number in (1, 700, 1001):
        seen[value, number] = saved([value] * number + [0.1] * (1001 - number))
        print(f"{number} of 1001 are {value:g}: {seen[value, number]:g}")
divided = saved([1e-9] + [0.1] * 1000, "Div")
print("1 / 1e-9:", divided)
assert seen[1e5, 1] == seen[1e5, 700] == 65504 and seen[1e-9, 1] == seen[1e-9, 700] == 0, "the behaviour changed"
assert seen[1e5, 1001] == 100000 and abs(seen[1e-9, 1001] / 1e-9 - 1) < 1e-3, "the behaviour changed"
assert divided == float("inf"), "the behaviour changed"
PY
