"""Nearest patches and PaDiM's map beside their bare matrix products, one thread, in turns.

Run ``python -m benchmarks.nearest`` (``--quick`` for a look). The floor is the product alone, in blocks that
stay in the cache, into the same buffer; *rows* is what stood here before (512 vectors against the whole bank,
then the place of the minimum), *cdist* the distances as they are defined. PaDiM's floor reads its matrices
once. Processor seconds, medians of runs in turns. Precision: patches of a network against float64. Goal: 1.3
times the floor. *Cells* is PatchCore's search in large banks, on patches of a network.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import nfbmr
from nfbmr.features.backbone import load_backbone
from nfbmr.methods.cells import Cells
from nfbmr.methods.nearest import AT_ONCE, closest, nearest
from nfbmr.methods.padim.model import PaDiMStage
from nfbmr.methods.patchcore import PatchCoreConfig
from nfbmr.methods.patchcore.model import patches_of

SIZES = ((4096, 20971, 152), (4096, 4000, 152))
"""Patches asked about, of the bank, channels: PatchCore at 512 px, and the detail level's default."""
GOAL = 1.3


def measure(*, turns: int, sizes: tuple[tuple[int, int, int], ...] = SIZES) -> dict[str, Any]:
    """Milliseconds of each way at each size, and how far float32 is from float64.

    Args:
        turns: Runs of each, in turns.
        sizes: (Q, K, C) of each search.
    """
    torch.set_num_threads(1)
    return {
        "searches": [search(*size, turns=turns) for size in sizes],
        "closest": [few(*size, turns=turns) for size in sizes],
        "padim": [padim(side, turns=turns) for side in ((32,) if turns < 5 else (32, 64))],
        "cells": cells(turns=turns),
        "precision": precision(),
        "threads": 1,
        "goal": GOAL,
    }


def search(queries: int, rows: int, channels: int, *, turns: int) -> dict[str, Any]:
    """The nearest of a bank, each way."""
    generator = torch.Generator().manual_seed(0)
    x_QC = torch.randn(queries, channels, generator=generator).abs()
    bank_KC = torch.randn(rows, channels, generator=generator).abs()
    square_K = bank_KC.square().sum(1)
    milliseconds = in_turns(
        {
            "floor": lambda: floor(x_QC, bank_KC),
            "here": lambda: nearest(x_QC, bank_KC, square_K),
            "rows": lambda: by_rows(x_QC, bank_KC),
            "cdist": lambda: torch.cat(
                [torch.cdist(x, bank_KC).min(1).values for x in torch.split(x_QC, AT_ONCE)]
            ),
        },
        turns,
    )
    return {"size": [queries, rows, channels], "milliseconds": milliseconds, **ratio(milliseconds)}


def few(queries: int, rows: int, channels: int, *, turns: int) -> dict[str, Any]:
    """The nine nearest of one vector, as PatchCore weighs an image's score; the floor reads the bank once."""
    generator = torch.Generator().manual_seed(0)
    x_BC = torch.randn(1, channels, generator=generator).abs()
    bank_KC = torch.randn(rows, channels, generator=generator).abs()
    square_K = bank_KC.square().sum(1)
    milliseconds = in_turns(
        {
            "floor": lambda: x_BC @ bank_KC.T,
            "here": lambda: closest(x_BC, bank_KC, 9, square_K),
            "cdist": lambda: torch.cdist(x_BC, bank_KC).topk(9, largest=False),
        },
        turns * 4,
    )
    return {"size": [1, rows, channels], "milliseconds": milliseconds, **ratio(milliseconds)}


def padim(side: int, *, turns: int) -> dict[str, Any]:
    """The map of one image; the floor reads all whitening matrices once."""
    shapes = ((40, side, side), (112, side // 2, side // 2))
    stage = PaDiMStage(shapes, nfbmr.configure(settings={"method": "padim"}))
    whitening_PDD = torch.randn(stage.bank.tensor("whitening_PDD").shape)
    stage.bank.put(whitening_PDD=whitening_PDD)
    batch = tuple(torch.randn(1, *shape) for shape in shapes)
    milliseconds = in_turns({"floor": whitening_PDD.sum, "here": lambda: stage.maps(*batch)}, turns * 4)
    return {"size": list(whitening_PDD.shape), "milliseconds": milliseconds, **ratio(milliseconds)}


def floor(x_QC: Tensor, bank_KC: Tensor) -> None:
    """The product alone, in blocks."""
    buffer = torch.empty(AT_ONCE * AT_ONCE)
    for x in torch.split(x_QC, AT_ONCE):
        for rows in torch.split(bank_KC, AT_ONCE):
            torch.mm(x, rows.T, out=buffer[: len(x) * len(rows)].view(len(x), len(rows)))


def by_rows(x_QC: Tensor, bank_KC: Tensor) -> tuple[Tensor, Tensor]:
    """As it was before blocks of the bank."""
    square_K = bank_KC.square().sum(1)
    blocks = torch.split(x_QC, AT_ONCE)
    rows_Q = torch.cat([torch.addmm(square_K, x, bank_KC.T, alpha=-2.0).argmin(1) for x in blocks])
    return (x_QC - bank_KC[rows_Q]).square().sum(1).sqrt(), rows_Q


def cells(*, turns: int, asked: int = 4096) -> dict[str, Any]:
    """The search by cells beside the exact one: milliseconds, share of equal rows, mean relative error."""
    x_QC, bank_KC = _patches(images=24, asked=asked)
    square_K = bank_KC.square().sum(1)
    by_cells = Cells(bank_KC)
    milliseconds = in_turns(
        {
            "exact": lambda: nearest(x_QC, bank_KC, square_K),
            "here": lambda: by_cells.nearest_of_images(x_QC[None]),
        },
        turns,
    )
    exact_Q, exact_rows_Q = nearest(x_QC, bank_KC)
    distance_BQ, row_BQ = by_cells.nearest_of_images(x_QC[None])
    return {
        "size": [asked, *bank_KC.shape],
        "milliseconds": milliseconds,
        "ratio": milliseconds["here"] / milliseconds["exact"],
        "equal_rows": float((row_BQ[0] == exact_rows_Q).double().mean()),
        "relative_error": float((distance_BQ[0] / exact_Q - 1).mean()),
    }


def precision(images: int = 8, asked: int = 1024) -> dict[str, float]:
    """Share of rows that are not float64's, and the largest relative error of a distance.

    Args:
        images: Random ones.
        asked: Patches of the last of them.
    """
    x_QC, bank_KC = _patches(images, asked)
    distance_Q, rows_Q = nearest(x_QC, bank_KC)
    exact_QK = torch.cdist(x_QC.double(), bank_KC.double())
    exact_Q, exact_rows_Q = exact_QK.min(1)
    return {
        "patches": float(len(bank_KC)),
        "other_rows": float((rows_Q != exact_rows_Q).double().mean()),
        "relative_error": float(((distance_Q - exact_Q).abs() / exact_Q).max()),
        "norm_over_distance": float((x_QC.norm(dim=1) / exact_Q).max()),
    }


def _patches(images: int, asked: int) -> tuple[Tensor, Tensor]:
    """Patches of random, smoothed images of 256 px: those of the last ones, and the others."""
    config = nfbmr.configure(settings={"method": "patchcore"})
    generator = torch.Generator().manual_seed(0)
    noise_B3HW = torch.rand(images, 3, 64, 64, generator=generator)
    x_B3HW = torch.nn.functional.interpolate(noise_B3HW, size=256, mode="bicubic")
    network = load_backbone(config.features)
    with torch.inference_mode():
        patches_NC = patches_of(tuple(y.float() for y in network(x_B3HW)), PatchCoreConfig.of(config).patch)
    return patches_NC[-asked:], patches_NC[:-asked]


def in_turns(ways: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Median processor milliseconds of each; in turns, so that a busy machine meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with torch.inference_mode():
        for _ in range(turns + 1):
            for name, way in ways.items():
                started = time.process_time()
                way()
                seconds[name].append(time.process_time() - started)
    return {name: 1e3 * statistics.median(times[1:]) for name, times in seconds.items()}


def ratio(milliseconds: dict[str, float]) -> dict[str, float]:
    """Of what is here to the floor."""
    return {"ratio": milliseconds["here"] / milliseconds["floor"]}


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = ["| what | size | floor, ms | here | ratio | rows | cdist |", "|---|---|---|---|---|---|---|"]
    for name in ("searches", "closest", "padim"):
        for row in result[name]:
            ms = row["milliseconds"]
            others = " | ".join(f"{ms[way]:.1f}" if way in ms else "" for way in ("rows", "cdist"))
            size = " x ".join(map(str, row["size"]))
            lines.append(
                f"| {name} | {size} | {ms['floor']:.1f} | {ms['here']:.1f} | {row['ratio']:.2f} | {others} |"
            )
    by_cells = result["cells"]
    lines.append(
        f"\ncells, {' x '.join(map(str, by_cells['size']))}: {by_cells['milliseconds']['here']:.1f} ms, "
        f"{by_cells['ratio']:.2f} of the exact search here; {by_cells['equal_rows']:.1%} of the patches get "
        f"the same row, distances are {by_cells['relative_error']:.2%} too large on average"
    )
    exact = result["precision"]
    lines.append(
        f"\nagainst float64: {exact['other_rows']:.2%} other rows, distances off by "
        f"{exact['relative_error']:.1e} at most, where norms are up to "
        f"{exact['norm_over_distance']:.0f} times the distance"
    )
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table to standard error and JSON to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few turns")
    result = measure(turns=3 if parser.parse_args().quick else 9)
    print(table(result), file=sys.stderr)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
