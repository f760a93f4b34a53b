#!/usr/bin/env bash
# openvino 2026.4.1, onnx 1.23.2, onnxruntime 1.32.0
# An ONNX model in double precision is computed in float32 by OpenVINO's CPU plugin, also
# with EXECUTION_MODE_HINT=ACCURACY. Input and output are still called double, and nothing
# warns. (x + 1) - x of 100 000 000 is 0. Whatever needs the digits, such as a running sum
# or the whole-number weights of an 8-bit resize, is another number.
# Guess: computed in double, as the types of its ports say, or refused.
# Seen ((x + 1) - x for x = 100000000):
#   ONNX Runtime  1.0
#   OpenVINO      0.0   output type f64
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper

graph = helper.make_graph(
    [helper.make_node("Add", ["x", "one"], ["sum"]), helper.make_node("Sub", ["sum", "x"], ["y"])],
    "difference",
    [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [1])],
    [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1])],
    [helper.make_tensor("one", TensorProto.DOUBLE, [1], [1.0])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
x = np.array([1e8])
(right,) = onnxruntime.InferenceSession(model).run(None, {"x": x})
core = openvino.Core()
compiled = core.compile_model(core.read_model(model), "CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})
given = compiled([x])[0]
print("ONNX Runtime ", right[0])
print("OpenVINO     ", given[0], "  output type", compiled.outputs[0].element_type.to_string())
assert right[0] == 1.0 and given[0] == 0.0 and given.dtype == np.float64, "the behaviour changed"
PY
