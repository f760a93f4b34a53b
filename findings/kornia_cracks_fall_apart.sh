#!/usr/bin/env bash
# kornia 0.9.0, torch 2.15.0
# connected_components() does not give connected components by default: a label wanders one pixel an
# iteration, and there are 100 iterations (num_iterations). Whatever is longer than that falls apart, pixel by
# pixel: a straight crack across a picture of 512 px is counted as 412 defects, of which 411 have one pixel.
# Blobs up to 100 px across are right, so a mask of spots shows nothing. Nothing is said.
# Guess: one label for one crack.
# Seen:
#   spot of 80 px              1 regions, 0 of them of one pixel
#   crack of 100 px            1 regions, 0 of them of one pixel
#   crack of 512 px            412 regions, 411 of them of one pixel
#   the same, 512 iterations   1 regions, 0 of them of one pixel
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" kornia==0.9.0 torch==2.15.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'PY'
import torch
from kornia.contrib import connected_components


def regions(rows, columns, **options):
    mask = torch.zeros(1, 1, 512, 512)
    mask[0, 0, 100 : 100 + rows, :columns] = 1
    labels = connected_components(mask, **options)
    _, sizes = labels[mask > 0].unique(return_counts=True)
    return len(sizes), int((sizes == 1).sum())


spot, short, long = regions(80, 80), regions(1, 100), regions(1, 512)
enough = regions(1, 512, num_iterations=512)
for words, (count, single) in (
    ("spot of 80 px", spot),
    ("crack of 100 px", short),
    ("crack of 512 px", long),
    ("the same, 512 iterations", enough),
):
    print(f"{words:26s} {count} regions, {single} of them of one pixel")
assert (spot[0], short[0], enough[0]) == (1, 1, 1), "the behaviour changed"
assert long == (412, 411), "the behaviour changed"
PY
