#!/usr/bin/env bash
# torch 2.15.0, onnxscript 0.7.2, onnx 1.23.2
# A model exported by torch.onnx.export(dynamo=True) carries, with every node, the Python
# call stack that made it: file names with the exporting machine's folders and the user's
# name, and the source lines themselves. verbose=False, report=False and profile=False do
# not change it. Whoever gets the model file can read them.
# Guess: weights and graph alone; source positions only where a report is asked for.
# Seen:
#   folder of the source in the file: True
#   a source line in the file:        True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" torch==2.15.0 onnxscript==0.7.2 onnx==1.23.2 numpy==2.4.6
mkdir "$work/secret-customer"
cat > "$work/secret-customer/net.py" <<'PY'
import torch


class Net(torch.nn.Module):
    def forward(self, x):
        tuned_on_line_seven = x * 3
        return tuned_on_line_seven.relu()
PY
cat > "$work/run.py" <<'PY'
import contextlib
import io
import os
import sys
import warnings

warnings.simplefilter("ignore")
sys.path.insert(0, os.path.join(sys.argv[1], "secret-customer"))
import torch
from net import Net

path = os.path.join(sys.argv[1], "net.onnx")
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
    torch.onnx.export(Net(), (torch.rand(2, 3),), path, dynamo=True, verbose=False)
content = open(path, "rb").read()
print("folder of the source in the file:", b"secret-customer" in content)
print("a source line in the file:       ", b"tuned_on_line_seven = x * 3" in content)
assert b"secret-customer" in content, "the behaviour changed"
PY
"$work/venv/bin/python" "$work/run.py" "$work" 2> /dev/null
