#!/usr/bin/env bash
# FrEIA 0.2, torch 2.15.0, numpy 2.4.6
# ActNorm's log-determinant counts the positions of the map for which it was built, not of the
# map that it is given. At another size the latents are right and the likelihood is wrong, by
# the ratio of the areas; AllInOneBlock beside it counts the positions that it sees. Scores
# in bits per dimension then jump with the image's size.
# Guess: the sum over the positions of the input.
# Seen (built for 16 x 16, given 8 x 8; autograd's Jacobian is the truth):
#   ActNorm         returned 209.1, true 52.3
#   AllInOneBlock   returned / true 1.000
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" FrEIA==0.2 torch==2.15.0 numpy==2.4.6 scipy==1.17.1
"$work/venv/bin/python" -W ignore - <<'PY'
import torch
from FrEIA.modules import ActNorm, AllInOneBlock

torch.manual_seed(0)
image = torch.randn(1, 2, 8, 8, dtype=torch.float64)


def check(module):
    (_,), returned = module([image])
    jacobian = torch.autograd.functional.jacobian(lambda x: module([x])[0][0], image)
    return float(returned), float(torch.linalg.slogdet(jacobian.reshape(128, 128))[1])


act_norm = ActNorm([(2, 16, 16)]).double()
act_norm([torch.randn(8, 2, 16, 16, dtype=torch.float64) / 1.5])
block = AllInOneBlock([(2, 16, 16)], subnet_constructor=lambda i, o: torch.nn.Conv2d(i, o, 1)).double()
returned, true = check(act_norm)
print(f"ActNorm         returned {returned:.1f}, true {true:.1f}")
assert abs(returned / true - 4) < 1e-6, "the behaviour changed"
returned, true = check(block)
print(f"AllInOneBlock   returned / true {returned / true:.3f}")
assert abs(returned / true - 1) < 1e-6, "the behaviour changed"
PY
