"""What runs under one MLflow parent cost as they become many: sending one, the driver's part, verifying all.

Children are recorded and sent by several processes at once, ours (journal and uploader) and raw calls of
MlflowClient in turns; first under a parent without children, then under one with as many as asked for. These
are copies of one that was sent: in its folder, in Optuna's journal, and in the database itself, since sending
ten thousand would take an hour. ``nfbmr track verify`` then compares all of them, in a process of its own,
and the page of runs is opened in a browser.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.growth_copies import fill
from benchmarks.growth_page import opened
from benchmarks.growth_trials import finished, journals, plan_of, quiet, space_named
from mlflow_server.client import connect
from mlflow_server.destination import Destination
from mlflow_server.tracking.journal_uploader import JournalUploader
from mlflow_server.tracking.remote_run import EXPERIMENT_TAGS, VIEWS
from nfbmr.paths import RunPaths, write_json
from nfbmr.resolve import flat
from nfbmr.tracking import FolderTracker
from tune.execution.trial_spec import TrialSpec
from tune.records.children import child_tags
from tune.records.parent import ParentRecord
from tune.records.paths import SweepPaths
from tune.search.plan import SweepPlan

EPOCHS = 10
EXPERIMENT = "growth"
TEMPLATE = "grown-0000"


def epochs() -> list[dict[str, float]]:
    """What a trial reports, an epoch each."""
    return [
        {"flow/loss": 1 / (n + 1), "flow/seconds": 1.5, "flow/validation_auroc": 0.5 + n / 100}
        for n in range(EPOCHS)
    ]


REACHED = 0.9
RESULTS = {f"validation/{name}": REACHED for name in ("image_auroc", "image_auroc_low", "f1", "recall")}


def record(folder: Path, plan: SweepPlan, run_id: str, uri: str) -> Path:
    """A trial's journal, whole; nothing is sent.

    Returns:
        Its folder.
    """
    paths = RunPaths(folder)
    folder.mkdir(parents=True)
    write_json(paths.identity, {"run_id": run_id})
    (folder / "notes.txt").write_text("of a trial\n", encoding="utf-8")
    summary = finished(TrialSpec("", plan.config, folder, run_id, "", plan.name), REACHED).summary
    assert summary is not None
    summary.write(paths.fitted)
    tracker = FolderTracker(
        paths.journal, run_id=run_id, parent_id=plan.name, tags=child_tags(plan.name, run_id, {}),
        system_metrics_every=None, destination=Destination(uri, EXPERIMENT).as_fields(),
    )  # fmt: skip
    tracker.params(flat(plan.config))
    for step, numbers in enumerate(epochs()):
        tracker.metrics(numbers, step=step)
    tracker.metrics(RESULTS)
    tracker.artifact(folder / "notes.txt")
    tracker.finish()
    return paths.journal


def send_raw(plan: SweepPlan, uri: str, parent: str) -> None:
    """A child of the same size by raw calls; `parent` is MLflow's own name of the run above."""
    from mlflow.entities import Metric, Param

    client = connect(Destination(uri, EXPERIMENT))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    run = client.create_run(experiment.experiment_id, tags={"mlflow.parentRunId": parent}).info.run_id
    params = [Param(name, str(value)[:500]) for name, value in flat(plan.config).items()]
    for start in range(0, len(params), 100):
        client.log_batch(run, params=params[start : start + 100])
    now = int(time.time() * 1000)
    points = [(n, v, step) for step, numbers in enumerate(epochs()) for n, v in numbers.items()]
    points += [(name, value, 0) for name, value in RESULTS.items()]
    client.log_batch(run, metrics=[Metric(name, value, now, step) for name, value, step in points])
    note = Path(plan.config.output) / "notes.txt"
    note.write_text("of a trial\n", encoding="utf-8")
    client.log_artifact(run, str(note))
    client.set_terminated(run)


def writer(root: Path, uri: str, name: str, parent: str, trials: int) -> dict[str, list[float]]:
    """Send children of both kinds in turns; seconds of each. The first of each is not counted."""
    plan = plan_of(root, space_named("default"))
    seconds: dict[str, list[float]] = {"ours": [], "raw": []}
    for n in range(trials + 1):
        folder = record(root / "writers" / name / str(n), plan, f"{name}-{n}", uri)
        for way, measured in seconds.items():
            began = time.perf_counter()
            if way == "ours":
                JournalUploader(folder, Destination(uri, EXPERIMENT)).ship()
            else:
                send_raw(plan, uri, parent)
            if n:
                measured.append(time.perf_counter() - began)
    return seconds


def written_by(writers: int, root: Path, uri: str, stage: str, parent: str, trials: int) -> dict[str, float]:
    """Median milliseconds a child, of so many processes at once."""
    # From one process that has imported MLflow: sixteen imports at once would be most of what is measured.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["mlflow", "benchmarks.growth_runs"])
    with processes.Pool(writers) as pool:
        asked = [(root, uri, f"{stage}-{n}", parent, trials) for n in range(writers)]
        answers = pool.starmap(writer, asked, chunksize=1)
    return {
        f"{way}_ms": 1e3 * median(took for answer in answers for took in answer[way])
        for way in ("ours", "raw")
    }


def driven(paths: SweepPaths, plan: SweepPlan, uri: str, first: int, trials: int) -> dict[str, float]:
    """The driver's own part at the end of a trial that has sent itself: milliseconds in the median.

    ``resume_s`` is what opening the parent's record took, with as many trials as there are already.
    """
    tracking = plan.config.tracking.model_copy(
        update={"kind": "mlflow", "uri": uri, "experiment": EXPERIMENT}
    )
    config = plan.config.model_copy(update={"tracking": tracking})
    parent = ParentRecord(paths, config)
    began = time.perf_counter()
    parent.begin(plan.asked(), config)
    resumed = time.perf_counter() - began
    wall, cpu = [], []
    for n in range(first, first + trials):
        folder = paths.trial(n)
        record(folder, plan, f"{plan.name}-{n:04d}", uri)
        outcome = finished(
            TrialSpec(f"{n:04d}", config, folder, f"{plan.name}-{n:04d}", "", plan.name), REACHED
        )
        at, used = time.perf_counter(), time.thread_time()
        parent.outcome(outcome)
        wall.append(time.perf_counter() - at)
        cpu.append(time.thread_time() - used)
    parent.end(None, "finished")
    return {"resume_s": resumed, "driver_ms": 1e3 * median(wall), "driver_cpu_ms": 1e3 * median(cpu)}


def verified(paths: SweepPaths) -> dict[str, Any]:
    """`nfbmr track verify` in a process of its own: seconds, CPU seconds and its largest size."""
    program = (
        "import json, re, sys, time; from pathlib import Path\n"
        "from tune.verify import find_plan, verify\n"
        "began = time.perf_counter()\n"
        "result = verify(find_plan(sys.argv[1], Path('.')))\n"
        "seconds, used = time.perf_counter() - began, time.process_time()\n"
        # Not by getrusage: there a process inherits what its parent was at most.
        "peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())\n"
        # Those of the writers have no folders among the trials.
        "agreed = not result.problem and all(each.kind == 'folder' for each in result.differences)\n"
        "print(json.dumps({'agreed': agreed, 'runs': result.runs, 'text': result.text()[:500],\n"
        "    'seconds': seconds, 'cpu_s': used, 'peak_mb': int(peak[1]) / 1024}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(paths.root)], check=True, stdout=subprocess.PIPE, text=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    if not answer["agreed"]:
        raise RuntimeError(f"what was made does not agree: {answer['text']}")
    return {name: answer[name] for name in ("runs", "seconds", "cpu_s", "peak_mb")}


def under_one_parent(
    root: Path, children: int, writers: int, trials: int, uri: str | None = None
) -> dict[str, Any]:
    """All of it, with so many children, processes, and trials of each.

    Args:
        root: A folder that is made.
        children: Under the parent at the end.
        writers: Processes that send at once.
        trials: That each of them sends, and the driver ends.
        uri: Of an empty PostgreSQL database, without a password, which journals do not keep; else SQLite.
    """
    root.mkdir(parents=True)
    uri = uri or f"sqlite:///{root / 'mlflow.db'}"
    destination = Destination(uri, EXPERIMENT)
    place = (root / "mlartifacts").as_uri()
    connect(destination).create_experiment(EXPERIMENT, place, tags=EXPERIMENT_TAGS | VIEWS)
    plan = plan_of(root, space_named("default"))
    paths = SweepPaths(root / plan.name)
    plan.write(paths.plan)
    begin = driven(paths, plan, uri, 0, trials + 1)
    (parent,) = _search(destination, plan.name)
    begin |= written_by(writers, root, uri, "begin", parent, trials)
    made = range(trials + 1, children)
    with quiet():
        (study,) = journals(plan, [children], root / "journals", value=lambda _: REACHED).values()
    shutil.copy(study, paths.study)
    fill(paths, uri, TEMPLATE, made)
    checked = verified(paths)
    end = driven(paths, plan, uri, children, trials)
    end |= written_by(writers, root, uri, "end", parent, trials)
    return {
        "database": uri.partition(":")[0],
        "children": children,
        "writers": writers,
        "begin": begin,
        "end": end,
        "verify": checked,
        "page": opened(uri, EXPERIMENT, root / "page"),
    }


def _search(destination: Destination, run_id: str) -> list[str]:
    client = connect(destination)
    experiment = client.get_experiment_by_name(destination.experiment)
    assert experiment is not None
    query = f"tags.`nfbmr.run_id` = '{run_id}'"
    return [run.info.run_id for run in client.search_runs([experiment.experiment_id], query)]
