"""Writers for a load, in a process of their own: each records until its time is up, nothing is retried.

``python writers.py ADDRESS NAME COUNT SECONDS FOLDER`` prints, at the end, what every run should have. A file
FOLDER/stop ends it earlier.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from mlflow_server.destination import Destination
from mlflow_server.tracking.remote_run import Opening, RemoteRun
from nfbmr.journal import Entry

NAMES = ("flow/loss", "flow/validation_loss", "mapping/loss", "validation/image_auroc", "seconds/epoch")
BATCH = 40


def entry(kind: str, time_: int, **fields: object) -> Entry:
    return Entry(kind=kind, time=time_, fields=fields, end=0)


class Writer(threading.Thread):
    """One who records run after run."""

    def __init__(self, destination: Destination, name: str, until: float, folder: Path) -> None:
        super().__init__(name=name)
        self.destination, self.until, self.folder = destination, until, folder
        self.runs: dict[str, dict[str, object]] = {}
        self.error = ""
        self.slowest = 0.0

    def run(self) -> None:
        try:
            number = 0
            while number == 0 or (time.time() < self.until and not (self.folder / "stop").exists()):
                self.record(f"{self.name}-{number:03d}")
                number += 1
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def record(self, run_id: str) -> None:
        now = int(time.time() * 1000)
        remote = RemoteRun(self.destination, Opening(run_id, run_id, None, now))
        told = self.runs[remote.mlflow_run_id] = {"points": 0, "finished": False, "file": ""}
        remote.log([entry("params", now, values={"flow.blocks": 4, "writer": self.name})])
        for step in range(5):
            entries = [
                entry(
                    "metrics", now + step * BATCH + k, values=dict.fromkeys(NAMES, 0.5), step=step * BATCH + k
                )
                for k in range(BATCH)
            ]
            begun = time.monotonic()
            remote.log(entries)
            self.slowest = max(self.slowest, time.monotonic() - begun)
            told["points"] = int(str(told["points"])) + BATCH * len(NAMES)
        remote.log([entry("tags", now, values={"nfbmr.method": "nf-bmr"})])
        file = self.folder / f"{run_id}.txt"
        file.write_text(run_id * 50)
        remote.artifact(file, "pictures")
        told["file"] = run_id * 50
        remote.end("finished", int(time.time() * 1000))
        told["finished"] = True


if __name__ == "__main__":
    address, name, count, seconds, folder = sys.argv[1:]
    until = time.time() + float(seconds)
    where = Destination(address, "load")
    writers = [Writer(where, f"{name}-{number}", until, Path(folder)) for number in range(int(count))]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    sys.stdout.write(
        json.dumps(
            {
                "runs": {run_id: told for writer in writers for run_id, told in writer.runs.items()},
                "errors": [writer.error for writer in writers if writer.error],
                "slowest": max(writer.slowest for writer in writers),
            }
        )
    )
