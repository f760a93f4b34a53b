#!/usr/bin/env bash
# FrEIA 0.2, torch 2.15.0, numpy 2.4.6
# ActNorm takes its scale and shift from the first batch that it is shown: also in eval(), also
# under no_grad(), and each process from its own batch after DistributedDataParallel has
# synchronised the parameters. So two workers train two models for good, of which one is
# saved. A copy for a moving average that was made before the first batch receives the
# averaged parameters, and throws them away on the first image that it scores, which then
# looks normal however odd it is: mean 0, deviation 1.
# Guess: it initialises in training alone, DDP hands rank 0's values to all, and a copy that
# was given parameters uses them.
# Seen:
#   eval() and no_grad(): scale changed by the batch: True
#   moving average, an image ten times as bright: latent mean 0.00, deviation 1.00
#   the trained model, the same image: latent mean 45.47, deviation 10.46
#   DDP, scale after three steps on rank 0 and rank 1: differ by 1.10
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export TMPDIR="$work"
uv venv -q -p 3.11 "$work/venv"
uv pip install -q -p "$work/venv/bin/python" FrEIA==0.2 torch==2.15.0 numpy==2.4.6 scipy==1.17.1
"$work/venv/bin/python" -W ignore - <<'PY'
import os
import tempfile

import torch
from FrEIA.modules import ActNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

folder = tempfile.mkdtemp()
torch.manual_seed(0)
batch = torch.randn(64, 2, 8, 8) * 2 + 10
bright = batch[:1] * 10


def one_rank(rank):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = ActNorm([(2, 8, 8)])
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        (latent,), log_determinant = parallel([batch * (1 + 2 * rank)])
        optimizer.zero_grad()
        ((latent**2).sum(dim=(1, 2, 3)) / 2 - log_determinant).mean().div(128).backward()
        optimizer.step()
    torch.save(model.scale.detach(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


fresh = ActNorm([(2, 8, 8)]).eval()
with torch.no_grad():
    fresh([batch])
changed = bool(fresh.scale.abs().max() > 0)
print("eval() and no_grad(): scale changed by the batch:", changed)

model = ActNorm([(2, 8, 8)])
average = AveragedModel(model)
model([batch])
average.update_parameters(model)
assert torch.equal(average.module.scale, model.scale)
model.eval()
average.eval()
with torch.no_grad():
    averaged = average([bright])[0][0]
    trained = model([bright])[0][0]
for words, latent in (("moving average, an", averaged), ("the trained model, the same", trained)):
    image = "image ten times as bright" if latent is averaged else "image"
    print(f"{words} {image}: latent mean {latent.mean().abs():.2f}, deviation {latent.std():.2f}")

os.environ["GLOO_SOCKET_IFNAME"] = "lo"
ranks = [os.fork() for _ in range(1)]
one_rank(1 if ranks[0] == 0 else 0)
if ranks[0] == 0:
    os._exit(0)
os.waitpid(ranks[0], 0)
gap = float((torch.load(f"{folder}/0.pt") - torch.load(f"{folder}/1.pt")).abs().max())
print(f"DDP, scale after three steps on rank 0 and rank 1: differ by {gap:.2f}")
assert changed and averaged.mean().abs() < 0.01 and trained.mean() > 10 and gap > 0.5, "the behaviour changed"
PY
