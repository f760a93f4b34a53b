"""What is wrong is said before anything is sent, and all of it at once."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.jobs.preflight import PreflightError, Report, judge
from cluster.jobs.probe import Question, as_argument, earlier_trials, look
from cluster.jobs.request import Needs, Request
from cluster.jobs.upload import Upload
from nfbmr.config import Config

DATA, STORE, OUTPUT = Path("/shared/parts"), Path("/shared/store"), Path("/shared/runs")


def request(**needs: Any) -> Request:
    return Request(
        command="sweep",
        words=(),
        files={},
        reads={"data": DATA},
        writes={"output": OUTPUT, "store": STORE},
        needs=Needs(**{"bundle": {"CPU": 1.0}, **needs}),
        config=Config(),
    )


def node(number: int, **changes: Any) -> dict[str, Any]:
    seen = {"shared": True, "writable": True}
    return {
        "node_id": f"{number:06d}",
        "address": f"10.0.0.{number}",
        "head": number == 0,
        "resources": {"CPU": 4.0, "memory": 8e9},
        "hostname": f"host-{number}",
        "python": "3.11.9",
        "versions": dict.fromkeys(("ray", "torch", "timm", "FrEIA", "pyarrow"), "1.0"),
        "memory": 8_000_000_000,
        "gpu_memory": [],
        "reads": {"data": "digest"},
        "writes": {"output": dict(seen), "store": dict(seen)},
        "tracking": None,
    } | changes


def answer(*nodes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "nodes": list(nodes or (node(0), node(1))),
        "tracking": {"uri": None, "own": False},
        "trial": {"seconds": None, "count": 0, "found_in": str(OUTPUT), "bytes": None},
    } | changes


def judged(asked: Request, told: dict[str, Any]) -> Report:
    return judge(asked, told, Report("http://127.0.0.1:8265", Upload({})))


def problems(asked: Request, told: dict[str, Any]) -> list[str]:
    return [what for what, _ in judged(asked, told).problems]


def test_a_cluster_that_fits_has_no_problems() -> None:
    report = judged(request(), answer())
    report.refuse()
    assert report.problems == ()
    assert report.at_once == 8
    assert report.trials_per_hour is None
    assert "unknown" in report.render()


def with_(number: int, key: str, inner: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(node(number))
    changed[key][inner] = value
    return changed


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"reads": {"data": None}}, "data /shared/parts is not there on 10.0.0.1"),
        ({"reads": {"data": "another"}}, "does not hold the same on every node"),
        ({"python": "3.12.1"}, "different versions of python: 3.11.9 on 10.0.0.0"),
        ({"versions": with_(1, "versions", "torch", None)["versions"]}, "torch is not installed on 10.0.0.1"),
        ({"versions": with_(1, "versions", "ray", "2.0")["versions"]}, "different versions of ray"),
        (
            {"writes": with_(1, "writes", "store", {"shared": False, "writable": True})["writes"]},
            "store /shared/store is another folder on 10.0.0.1",
        ),
        (
            {"writes": with_(1, "writes", "output", {"shared": True, "writable": False})["writes"]},
            "output /shared/runs cannot be written on 10.0.0.1",
        ),
        ({"tracking": "refused"}, "not reached from 10.0.0.1 (000001) (refused)"),
        ({"error": "did not answer within 120 s"}, "node 10.0.0.1 (000001) did not answer"),
    ],
)
def test_what_is_wrong_with_one_node_is_told_with_its_name(second: dict[str, Any], said: str) -> None:
    reasons = problems(request(), answer(node(0), node(1, **second)))
    assert len(reasons) == 1
    assert said in reasons[0]


def test_resources_that_nobody_has() -> None:
    assert problems(request(bundle={"CPU": 1.0, "GPU": 0.25}), answer()) == [
        "a worker asks for 0.25 GPU, and no node has any"
    ]
    assert "the most a node has is 4" in problems(request(bundle={"CPU": 5.0}), answer())[0]
    assert problems(request(bundle={"CPU": 3.0}, workers=3), answer()) == [
        "3 workers of 3 CPU each do not fit: there is room for 2"
    ]
    apart = answer(node(0), node(1, resources={"CPU": 1.0, "GPU": 1.0}))
    assert "no single node has 2 CPU, 1 GPU" in problems(request(bundle={"CPU": 2.0, "GPU": 1.0}), apart)[0]


def test_memory_and_gpus_that_are_too_small() -> None:
    trial = {"seconds": None, "count": 0, "found_in": "", "bytes": 12_000_000_000}
    assert "the largest node has 8.0 GB" in problems(request(), answer(trial=trial))[0]
    gpu = node(0, resources={"CPU": 4.0, "GPU": 1.0}, memory=10**11, gpu_memory=[24_000_000_000])
    asked = request(bundle={"CPU": 1.0, "GPU": 0.25})
    assert "0.25 of the largest GPU is 6.0 GB" in problems(asked, answer(gpu, trial=trial))[0]
    assert problems(request(bundle={"CPU": 1.0, "GPU": 0.5}), answer(gpu, trial=trial)) == []


def test_everything_is_said_at_once() -> None:
    reply = answer(node(0, reads={"data": None}), node(1, tracking="refused", python="3.12.0"))
    report = judged(request(bundle={"GPU": 1.0}), reply)
    with pytest.raises(PreflightError) as caught:
        report.refuse()
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert "4 problems; nothing was submitted" in text
    assert all(part in text for part in ("is not there", "refused", "python", "GPU", "--no-preflight"))
    assert json.loads(json.dumps(report.as_json()))["problems"][0]["fix"]


@given(
    nodes=st.lists(st.tuples(st.integers(0, 16), st.integers(0, 4)), min_size=1, max_size=5),
    cpus=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    gpus=st.sampled_from([0.0, 0.25, 1.0]),
    workers=st.integers(1, 4),
    concurrent=st.none() | st.integers(1, 6),
)
def test_room_is_never_more_than_resources_allow(
    nodes: list[tuple[int, int]], cpus: float, gpus: float, workers: int, concurrent: int | None
) -> None:
    asked = request(bundle={"CPU": cpus, "GPU": gpus}, workers=workers, concurrent=concurrent)
    reply = answer(*(node(i, resources={"CPU": c, "GPU": g}) for i, (c, g) in enumerate(nodes)))
    report = judged(asked, reply)
    assert report.at_once * workers * cpus <= sum(c for c, _ in nodes)
    assert report.at_once * workers * gpus <= sum(g for _, g in nodes)
    assert concurrent is None or report.at_once <= concurrent
    # there is room for a trial exactly if nothing was said about resources
    assert (report.at_once > 0) == (not report.problems)


def test_the_rate_is_guessed_from_what_is_finished_and_says_so(tmp_path: Path) -> None:
    assert earlier_trials(tmp_path, None)["seconds"] is None
    config = Config().model_dump(mode="json")
    other = Config(method="nf").model_dump(mode="json")
    for number, (seconds, used) in enumerate([(10.0, config), (20.0, config), (60.0, config), (9.0, other)]):
        folder = tmp_path / "tiles" / "trials" / f"{number:04d}"
        folder.mkdir(parents=True)
        summary = {"timings": {"flow": seconds / 2, "mapping": seconds / 2}, "config": used}
        (folder / "fitted.json").write_text(json.dumps(summary), encoding="utf-8")
    (tmp_path / "tiles" / "trials" / "0000" / "fitted.json").with_name("broken").touch()
    earlier = earlier_trials(tmp_path, config)
    assert (earlier["seconds"], earlier["count"]) == (20.0, 3)
    report = judged(request(concurrent=2), answer(trial={**earlier, "bytes": None}))
    assert report.trials_per_hour == 360
    assert "median 20 s of 3" in report.render()


def test_a_database_on_several_machines_is_worth_a_note() -> None:
    shared = {"shared": True, "writable": True}
    nodes = [node(i, writes=node(i)["writes"] | {"tracking": shared}) for i in range(2)]
    reply = answer(*nodes, tracking={"uri": "sqlite:////shared/mlflow.db", "own": False})
    report = judged(request(), reply)
    assert report.problems == ()
    assert any("several machines" in note for note in report.notes)
    assert report.tracking == "sqlite:////shared/mlflow.db"
    reply["tracking"]["own"] = True
    assert judged(request(), reply).tracking is None


def test_a_node_tells_what_it_sees(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "marker").touch()
    (tmp_path / "file").write_text("1", encoding="utf-8")
    asked = {
        "reads": {
            "data": str(tmp_path / "parts"),
            "weights": str(tmp_path / "file"),
            "no": str(tmp_path / "no"),
        },
        "writes": {"store": str(tmp_path / "store"), "output": str(tmp_path / "file")},
    }
    seen = look(asked, "marker", "http://127.0.0.1:1")
    assert seen["reads"]["data"]
    assert seen["reads"]["weights"] == "1"
    assert seen["reads"]["no"] is None
    assert seen["writes"] == {
        "store": {"shared": True, "writable": True},
        "output": {"shared": False, "writable": False},
    }
    assert seen["tracking"]
    assert seen["versions"]["torch"]
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["marker"]
    before = seen["reads"]["data"]
    (tmp_path / "parts" / "new.png").touch()
    assert look(asked, "marker", None)["reads"]["data"] != before


def test_a_question_travels_whole() -> None:
    question = Question({"data": "/a b"}, {"output": "/o"}, config={"x": "é"})
    assert Question(**json.loads(as_argument(question))) == question
