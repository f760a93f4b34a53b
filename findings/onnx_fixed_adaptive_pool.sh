#!/usr/bin/env bash
# torch 2.15.0, onnxscript 0.7.2, onnx 1.23.2, onnxruntime 1.32.0
# torch.onnx.export with dynamic height and width freezes adaptive pooling into a window of
# the size that suits the example image. Other images get another grid: asked for 4 x 4, the
# model exported at 64 x 64 returns 2 x 3 for 32 x 48. Nothing is said at export or at run
# time, and the exported program that the ONNX file was made from has it right.
# Guess: 4 x 4 whatever the image, or a refusal to export it as dynamic.
# Seen (grid for images of 64 x 64, 32 x 48 and 96 x 96):
#   torch.export   (4, 4) (4, 4) (4, 4)
#   ONNX           (4, 4) (2, 3) (6, 6)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" torch==2.15.0 onnxscript==0.7.2 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import contextlib
import io
import logging
import os
import tempfile

import onnxruntime
import torch

logging.disable(logging.WARNING)


class Grid(torch.nn.Module):
    """Features averaged over a grid of 4 x 4."""

    def forward(self, x_BCHW):
        return torch.nn.functional.adaptive_avg_pool2d(x_BCHW, (4, 4))


example = (torch.rand(1, 3, 64, 64),)
dynamic = ({2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
program = torch.export.export(Grid(), example, dynamic_shapes=dynamic)
path = os.path.join(tempfile.mkdtemp(), "grid.onnx")
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
    torch.onnx.export(Grid(), example, path, dynamo=True, dynamic_shapes=dynamic, verbose=False)
session = onnxruntime.InferenceSession(path)
images = [torch.rand(1, 3, *size) for size in ((64, 64), (32, 48), (96, 96))]
exported = [tuple(program.module()(image).shape[2:]) for image in images]
in_onnx = [session.run(None, {session.get_inputs()[0].name: image.numpy()})[0].shape[2:] for image in images]
print("torch.export  ", *exported)
print("ONNX          ", *in_onnx)
assert exported == [(4, 4)] * 3 and in_onnx == [(4, 4), (2, 3), (6, 6)], "the behaviour changed"
PY
