#!/usr/bin/env bash
# FrEIA 0.2, torch 2.15.0, numpy 2.4.6
# Under bf16 autocast on the CPU the log-determinant is summed over the map in bfloat16 and
# returned so, although GLOWCouplingBlock's latents come back in float32. (On CUDA autocast
# runs sum() in float32, on the CPU it does not.) On a map of 64 x 64 it moves in steps of 32
# nats and is off by half of what images differ by: 64 images share 16 values.
# Guess: float32, like the latents.
# Seen:
#   latents torch.float32, log-determinant torch.bfloat16
#   64 images: 64 values in float32, 16 under autocast, in steps of 32
#   deviation over the images 112 nats, largest error 53 nats
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" FrEIA==0.2 torch==2.15.0 numpy==2.4.6 scipy==1.17.1
"$work/venv/bin/python" -W ignore - <<'PY'
import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import GLOWCouplingBlock

torch.manual_seed(0)
flow = SequenceINN(8, 64, 64)
for _ in range(4):
    flow.append(
        GLOWCouplingBlock,
        subnet_constructor=lambda i, o: torch.nn.Sequential(
            torch.nn.Conv2d(i, 32, 1), torch.nn.ReLU(), torch.nn.Conv2d(32, o, 1)
        ),
    )
images = torch.randn(64, 8, 64, 64)
with torch.no_grad():
    _, exact = flow(images)
    with torch.autocast("cpu", torch.bfloat16):
        latents, rounded = flow(images)
error = (rounded.float() - exact).abs()
print(f"latents {latents.dtype}, log-determinant {rounded.dtype}")
steps = rounded.float().unique().diff().min()
print(f"64 images: {len(exact.unique())} values in float32, {len(rounded.unique())} under autocast, in steps of {steps:.0f}")
print(f"deviation over the images {exact.std():.0f} nats, largest error {error.max():.0f} nats")
assert latents.dtype == torch.float32 and rounded.dtype == torch.bfloat16, "the behaviour changed"
assert len(exact.unique()) == 64 and len(rounded.unique()) < 32 and steps >= 16, "the behaviour changed"
PY
