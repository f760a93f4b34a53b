"""What whoever plans trials relies on, the same on Ray and in this process."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict

import psutil
import pytest

from nfbmr.errors import ConfigError
from nfbmr.journal import entries
from nfbmr.paths import RunPaths
from nfbmr.records import read_record
from nfbmr.stopping import StopRequest
from tune.execution.execute import execute
from tune.execution.settings import Execution
from tune.execution.trial_spec import TrialSpec


@pytest.fixture(scope="module")
def cluster():
    """One cluster for all: starting one takes seconds."""
    from cluster.connection import connect

    with connect("local", cpus=2) as connection:
        yield connection


@pytest.fixture(params=["local", "ray"])
def backend(request):
    """Both backends, which share one contract."""
    if request.param == "ray":
        request.getfixturevalue("cluster")
    return request.param


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Features and flows, made once."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def task(tiny, store, tmp_path):
    """Makes tasks."""

    def make(key, *, test=False, **settings):
        config = tiny(**({"store": str(store), "features__compute": "fp32"} | settings))
        folder = tmp_path / "sweep" / "trials" / key
        return TrialSpec(key, config, folder, f"sweep-{key}", f"trial {key}", "sweep", test, {"kind": "tiny"})

    return make


class Planner:
    """Hands out a list, and remembers what it hears."""

    def __init__(self, tasks, on_report):
        self._left = list(tasks)
        self._on_report = on_report
        self.given = []
        self.steps = defaultdict(list)
        self.outcomes = {}

    def next(self):
        if not self._left:
            return None
        self.given.append(self._left[0].key)
        return self._left.pop(0)

    def report(self, key, step, metrics):
        self.steps[key].append(step)
        return bool(self._on_report and self._on_report(key, step, metrics))

    def done(self, outcome):
        assert outcome.key not in self.outcomes
        self.outcomes[outcome.key] = outcome


@pytest.fixture
def run(backend, tmp_path):
    """Runs tasks on the backend, and gives the planner that heard of them."""

    def run(*tasks, on_report=None, stop=None, **how):
        planner = Planner(tasks, on_report)
        stop_file = tmp_path / "sweep" / "stop"
        execute(planner, Execution(backend=backend, **how), stop or StopRequest(), stop_file=stop_file)
        return planner

    return run


ray_only = pytest.mark.parametrize("backend", ["ray"], indirect=True)


def record_of(task):
    return read_record(RunPaths(task.folder).journal)


def starts_of(task):
    return [e.fields["run_id"] for e in entries(RunPaths(task.folder).journal) if e.kind == "start"]


def test_every_task_is_done_once_and_ends_as_it_should(run, task, tmp_path):
    tasks = [
        task("fine"),
        task("worse", mapping__latent=4),
        task("broken", data__path=str(tmp_path / "nowhere")),
        task("tested", test=True),
    ]
    planner = run(*tasks, on_report=lambda key, step, metrics: key == "worse" and step >= 4)
    assert planner.given == ["fine", "worse", "broken", "tested"]
    states = {key: outcome.state for key, outcome in planner.outcomes.items()}
    assert states == {"fine": "finished", "worse": "pruned", "broken": "failed", "tested": "finished"}
    assert planner.steps["fine"] == planner.steps["tested"] == [1, 2, 3, 4, 5]
    assert tasks[0].epochs == 5
    assert planner.steps["worse"][:4] == [1, 2, 3, 4]
    assert "nowhere" in planner.outcomes["broken"].error
    fine, tested = planner.outcomes["fine"], planner.outcomes["tested"]
    assert set(fine.summary.metrics) == {"validation"}
    assert tested.summary.tested
    assert (
        fine.summary.as_json()["metrics"]["validation"] == tested.summary.as_json()["metrics"]["validation"]
    )
    records = {t.key: record_of(t) for t in tasks if t.key != "broken"}
    assert {key: record.status for key, record in records.items()} == {
        "fine": "finished",
        "worse": "pruned",
        "tested": "finished",
    }
    assert records["fine"].run_id == "sweep-fine"
    assert records["fine"].run_name == "trial fine"
    assert records["fine"].parent_id == "sweep"
    assert records["fine"].tags["kind"] == "tiny"


def test_finished_trial_is_only_read(run, task):
    first_task = task("one")
    first = run(first_task).outcomes["one"]
    again = run(first_task)
    assert again.outcomes["one"].summary.as_json() == first.summary.as_json()
    assert again.steps == {}
    assert starts_of(first_task) == ["sweep-one"]


def test_stop_checkpoints_hands_out_nothing_more_and_can_be_gone_on_with(run, task, tmp_path):
    """The file is what a trial on another machine sees; a trial waits here while it is looked at."""
    settings = {"train__mapping__epochs": 8, "train__validate_every": 1, "seed": 3}
    whole = run(task("whole", **settings)).outcomes["whole"]
    parts = task("parts", **settings)

    def stop_at_5(key, step, metrics):
        if step == 5:
            (tmp_path / "sweep" / "stop").touch()
            time.sleep(1.5)

    planner = run(parts, task("later"), on_report=stop_at_5, concurrent=1)
    assert planner.given == ["parts"]
    assert planner.outcomes["parts"].state == "interrupted"
    assert record_of(parts).status == "killed"
    rest = run(parts)
    assert rest.outcomes["parts"].state == "finished"
    assert planner.steps["parts"][-1] < 11
    assert rest.steps["parts"][-1] == 11
    assert rest.outcomes["parts"].summary.as_json()["metrics"] == whole.summary.as_json()["metrics"]
    assert starts_of(parts) == ["sweep-parts", "sweep-parts"]


def test_nothing_is_handed_out_after_a_stop_or_at_the_end_of_the_budget(run, task):
    stop = StopRequest()
    stop.ask()
    assert run(task("one"), stop=stop).given == []
    assert run(task("one"), time_budget=0).given == []


def test_error_of_the_planner_comes_back_as_it_is(run, task):
    def bug(key, step, metrics):
        raise ZeroDivisionError("of the planner")

    with pytest.raises(ZeroDivisionError, match="of the planner"):
        run(task("one"), on_report=bug)


@pytest.mark.slow
@ray_only
def test_killed_worker_is_followed_by_completion_under_the_same_name(run, task):
    whole = run(task("whole", train__validate_every=1)).outcomes["whole"]
    first_task = task("one", train__validate_every=1)
    killed: list[int] = []

    def kill_at_4(key, step, metrics):
        if step == 4 and not killed:
            killed.append(worker_pid())
            os.kill(killed[0], signal.SIGKILL)

    planner = run(first_task, on_report=kill_at_4)
    assert killed
    assert planner.outcomes["one"].state == "finished"
    assert planner.steps["one"][-1] == 5
    assert planner.outcomes["one"].summary.as_json()["metrics"] == whole.summary.as_json()["metrics"]
    assert starts_of(first_task) == ["sweep-one", "sweep-one"]
    record = record_of(first_task)
    assert record.status == "finished"
    assert [point.step for point in record.metrics["mapping/loss"]][-1] == 2


@pytest.mark.slow
@ray_only
def test_trial_whose_worker_dies_every_time_fails_and_the_others_finish(run, task):
    doomed = task("doomed")

    def kill_doomed(key, step, metrics):
        if key == "doomed":
            os.kill(worker_pid(), signal.SIGKILL)

    planner = run(doomed, task("fine"), on_report=kill_doomed, retries=1, concurrent=1)
    assert planner.outcomes["doomed"].state == "failed"
    assert "2 attempts" in planner.outcomes["doomed"].error
    assert planner.outcomes["fine"].state == "finished"
    assert record_of(doomed).status == "killed"


@ray_only
def test_resources_that_nobody_has_are_refused_before_the_first_trial(run, task):
    with pytest.raises(ConfigError, match="no node has room"):
        run(task("one"), gpus=1)
    with pytest.raises(ConfigError, match="no node has room"):
        run(task("one"), cpus=64)


@pytest.mark.parametrize(
    "wrong",
    [{"concurrent": 0}, {"cpus": 0}, {"gpus": 1.5}, {"retries": -1}, {"backend": "local", "workers": 2}],
)
def test_impossible_executions_are_refused(wrong):
    with pytest.raises(ConfigError):
        Execution(**wrong)


def worker_pid():
    """The process of the one trial that runs."""
    children = psutil.Process().children(recursive=True)
    (actor,) = [child.pid for child in children if " ".join(child.cmdline()).startswith("ray::Trial")]
    return actor
