#!/usr/bin/env bash
# onnxruntime 1.32.0, onnx 1.23.2, torch 2.15.0
# In a float16 model ONNX Runtime's CPU kernels hand float32 to each other: a squared activation of 1000, infinite in
# float16, is divided by 1000 and gives 1000, while the same model's own output of the square is infinite, also with all optimisations
# off. So one run's outputs contradict each other, a check on the CPU misses the overflow that the model has elsewhere, and values
# between nodes are not rounded to 16 bits. An overflow within one node (ReduceL2) stays one.
# Guess: values between nodes are those of their type, infinite as in torch.
# Seen (x is 1/3, 1000; optimisations off):
#   ONNX Runtime  a = x * x    0.1111  inf       torch  0.1111  inf
#   ONNX Runtime  y = a / x    0.3333  1000.0    torch  0.3333  inf
#   ONNX Runtime  sum of 4096 fifties / 4096    50.0     torch  inf
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" onnxruntime==1.32.0 onnx==1.23.2 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper


def run(nodes, x, outputs, constants=(), level="ORT_DISABLE_ALL"):
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT16, x.shape)
    wanted = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, None) for name in outputs]
    graph = helper.make_graph(nodes, "half", [given], wanted, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


x = np.array([1 / 3, 1000], np.float16)
square = [helper.make_node("Mul", ["x", "x"], ["a"]), helper.make_node("Div", ["a", "x"], ["y"])]
in_torch = torch.tensor(x)
for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
    a, y = run(square, x, ["a", "y"], level=level)
    print(level, "a", a, "y", y, "; torch", (in_torch * in_torch).tolist(), (in_torch * in_torch / in_torch).tolist())
    assert np.isinf(a[1]) and y[1] == 1000, "the behaviour changed"
assert torch.isinf(in_torch * in_torch / in_torch)[1]
fifties = np.full((1, 4096), 50, np.float16)
mean = [helper.make_node("ReduceSum", ["x", "axes"], ["a"]), helper.make_node("Div", ["a", "n"], ["y"])]
constants = [numpy_helper.from_array(np.array([1]), "axes"), numpy_helper.from_array(np.array([4096], np.float16), "n")]
total, (share,) = run(mean, fifties, ["a", "y"], constants)
print("sum", total[0, 0], "over 4096", share[0], "; torch", (torch.tensor(fifties).sum(1) / 4096).item())
assert np.isinf(total[0, 0]) and share[0] == 50, "the behaviour changed"
PY
