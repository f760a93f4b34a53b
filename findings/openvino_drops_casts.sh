#!/usr/bin/env bash
# openvino 2026.4.1, onnx 1.23.2, onnxruntime 1.32.0
# A cast to float16 and back, in a float32 ONNX model, rounds nothing in OpenVINO's CPU plugin: it
# takes float16 for float32 and the casts for nothing, with INFERENCE_PRECISION_HINT=f32, and with
# EXECUTION_MODE_HINT=ACCURACY as well. The same casts to bfloat16 do round. Nothing warns.
# What a model rounds on purpose, such as features that are stored in 16 bits, stays unrounded, and
# what is too large for float16 stays finite.
# Guess: both rounded, as ONNX says of Cast: a hint of f32 is about arithmetic, not about values.
# Seen (of 1/3, 2049, 100000; processor with AVX-512 and bfloat16):
#   ONNX Runtime  float16   0.33325195  2048.  inf
#   OpenVINO      float16   0.33333334  2049.  100000.
#   ONNX Runtime  bfloat16  0.33398438  2048.  99840.
#   OpenVINO      bfloat16  0.33398438  2048.  99840.
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

x = np.array([1 / 3, 2049, 100000], np.float32)
f32 = {"INFERENCE_PRECISION_HINT": "f32"}
for name, kind in (("float16", TensorProto.FLOAT16), ("bfloat16", TensorProto.BFLOAT16)):
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["r"], to=kind), helper.make_node("Cast", ["r"], ["y"], to=TensorProto.FLOAT)],
        "rounded",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    (right,) = onnxruntime.InferenceSession(model).run(None, {"x": x})
    print("ONNX Runtime ", name, right)
    for hint in (f32, {**f32, "EXECUTION_MODE_HINT": "ACCURACY"}):
        core = openvino.Core()
        given = core.compile_model(core.read_model(model), "CPU", hint)([x])[0]
        print("OpenVINO     ", name, given, hint)
        if name == "float16":
            assert (right != x).all() and (given == x).all(), "the behaviour changed"
PY
