"""What a GPU gives, in five parts and under eight minutes.

Run ``python -m benchmarks.gpu --out DIR`` where a GPU is; ``--device cpu --tiny`` tries the script out
without. Nothing but the core is needed: neither Ray nor MLflow, no data set, no weights from the network.

- training: the paper's stages at (304, 24, 24), hidden 1024, 242 images, in bf16, by batch, plain and
  compiled; then stage one for 300 epochs. Goal: 60 s, and half of the measured bf16 matrix rate.
- extraction: EfficientNet-b5 at 768 px from files to store, against the bare forward pass.
- ddp: steps in DistributedDataParallel with one process over NCCL, against the CPU's. Goal: losses within a
  thousandth.
- scores: the same run in bf16 and in float32: AUROC, and how far scores are apart.
- sharing: four runs at once on one card, as many as ``gpu=auto`` says, against one alone.

Each part runs in a process of its own with a time limit of its own, and writes ``DIR/PART.json`` at its end;
begun again, the script does what is not done. A part that fails is named in the table, and the rest goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMITS = {"training": 170, "extraction": 70, "ddp": 40, "scores": 90, "sharing": 105}
"""Seconds of each part: less than eight minutes together."""
TINY_LIMIT = 600
"""Seconds of a part that is only tried out, whatever else its machine does."""


def main() -> int:
    """Run the parts that are missing; a table to standard error, all results to standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(LIMITS)}; all by default")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU does in seconds")
    parser.add_argument("--again", action="store_true", help="parts that are done as well")
    parser.add_argument("--only", choices=LIMITS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.parts) - set(LIMITS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(LIMITS)}")
    given.out.mkdir(parents=True, exist_ok=True)
    if given.only:
        from benchmarks.gpu_parts import PARTS, about

        result = PARTS[given.only](given.out, given.device, given.tiny)
        print(json.dumps({**about(given.device), **result}))
        return 0
    setting = {"device": given.device, "tiny": given.tiny}
    for part in given.parts or LIMITS:
        file = given.out / f"{part}.json"
        if not given.again and _is_done(file, setting):
            print(f"{part}: done already ({file})", file=sys.stderr)
            continue
        print(f"{part} ...", file=sys.stderr)
        file.write_text(json.dumps({**setting, **run(part, given)}, indent=2) + "\n", encoding="utf-8")
    results = {part: _read(given.out / f"{part}.json") for part in LIMITS}
    page = table(results)
    (given.out / "gpu.md").write_text(page + "\n", encoding="utf-8")
    print(page, file=sys.stderr)
    print(json.dumps(results, indent=2))
    return 0 if all(result is None or result["state"] == "done" for result in results.values()) else 1


def run(part: str, given: argparse.Namespace) -> dict[str, Any]:
    """One part in a process of its own: its result, or in words why there is none."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--only", part, "--out", str(given.out)]
    command += ["--device", given.device, *(["--tiny"] if given.tiny else [])]
    limit, began = TINY_LIMIT if given.tiny else LIMITS[part], time.monotonic()
    # A group of its own, so that whatever the part has begun ends with it.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        answer, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return {"state": f"not done within {limit} s"}
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode:
        return {"state": f"ended with {process.returncode}; its last words are above"}
    return {"state": "done", "seconds": time.monotonic() - began, **json.loads(answer.splitlines()[-1])}


def _read(file: Path) -> dict[str, Any] | None:
    try:
        result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result


def _is_done(file: Path, setting: dict[str, Any]) -> bool:
    result = _read(file)
    return result is not None and result["state"] == "done" and setting.items() <= result.items()


def table(results: dict[str, dict[str, Any] | None]) -> str:
    """All parts for people, as Markdown."""
    lines = ["| part | seconds | result |", "|---|---|---|"]
    for part, result in results.items():
        if result is None:
            lines.append(f"| {part} | | not run |")
        elif result["state"] != "done":
            lines.append(f"| {part} | | {result['state']} |")
        else:
            lines.append(f"| {part} | {result['seconds']:.0f} | {_WORDS[part](result)} |")
    done = [result for result in results.values() if result is not None and result["state"] == "done"]
    where = f"{done[0]['name']}, torch {done[0]['torch']}" if done else "nothing done"
    return "\n".join([where, "", *lines])


def _training(result: dict[str, Any]) -> str:
    whole = result["whole"]
    best = max(result["ways"], key=lambda way: way["share_of_bf16"])
    return (
        f"stage one, {whole['epochs']} epochs: {whole['seconds']:.0f} s ({whole['how']}; goal 60); quickest "
        f"{best['stage']}, batch {best['batch']}{', compiled' if best['compiled'] else ''}: "
        f"{best['share_of_bf16']:.0%} of {result['bf16_tflops']:.3g} TFLOP/s (goal 50 %)"
    )


def _extraction(result: dict[str, Any]) -> str:
    return (
        f"{result['backbone']} at {result['size']} px: {result['end_to_end']:.1f} images/s from file "
        f"to store, {result['forward']:.1f} bare ({result['end_to_end'] / result['forward']:.2f} of it)"
    )


def _ddp(result: dict[str, Any]) -> str:
    verdict = "within tolerance" if result["within"] else "NOT within tolerance"
    return f"{result['backend']}: largest relative difference of a loss {result['difference']:.1e}, {verdict}"


def _scores(result: dict[str, Any]) -> str:
    auroc = result["auroc"]
    return (
        f"AUROC {auroc['fp32']:.4f} in float32, {auroc['bf16']:.4f} in bf16; "
        f"scores {result['median']:.1e} of the spread apart (median), {result['largest']:.1e} at most"
    )


def _sharing(result: dict[str, Any]) -> str:
    share = "no GPU to share" if result["share"] is None else f"each {result['share']:g} of the card"
    return (
        f"{result['trials']} runs, {result['at_once']} at once ({share}), in {result['together']:.0f} s, "
        f"one in {result['alone']:.0f} s; AUROC {result['difference']:.1e} from that alone at most"
    )


_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "training": _training,
    "extraction": _extraction,
    "ddp": _ddp,
    "scores": _scores,
    "sharing": _sharing,
}


if __name__ == "__main__":
    sys.exit(main())
