"""``nfbmr serve`` as lines and browsers meet it: the real command, on loopback, with the real Ray Serve."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.tracking.models.serving import (
    TOKEN,
    Served,
    clients,
    command,
    damaged_version,
    environment,
    is_served,
    move,
    versions_seen,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def champion(served: Callable[..., Served], shelf: str) -> Served:
    words = ("parts@champion", "--replicas", "2", "--queue", "12", "--max-body", "4MB", "--watch", "0.5")
    return served(*words, MLFLOW_TRACKING_URI=shelf)


def test_it_says_what_it_serves(champion: Served) -> None:
    ready = champion.ask("GET", "/ready")
    assert ready.status_code == 200
    said = ready.json()
    assert (said["status"], said["model"], said["version"], said["token"]) == ("ready", "parts", "1", False)
    champion.until(lambda: champion.ask("GET", "/ready").json()["replicas"] == 2, "two replicas")
    for path in ("/health", "/ping"):
        assert champion.ask("GET", path).json() == {"status": "ok"}


def test_scores_are_those_of_the_evaluation(
    champion: Served, rows: list[dict[str, Any]], images: list[bytes]
) -> None:
    texts = [base64.b64encode(image).decode() for image in images]
    answers = champion.invoke({"inputs": texts, "params": {"heatmap": True}}).json()["predictions"]
    for row, image, answer in zip(rows, images, answers, strict=True):
        assert answer["score"] == pytest.approx(row["score"], rel=1e-4, abs=1e-5)
        assert answer["rejected"] == row["rejected"]
        assert base64.b64decode(answer["heatmap"]).startswith(b"\x89PNG")
        scored = champion.score(image).json()
        assert scored["score"] == pytest.approx(row["score"], rel=1e-4, abs=1e-5)
        assert (scored["rejected"], scored["heatmap"]) == (row["rejected"], None)


def test_an_upload_may_be_a_form_or_bytes_and_asks_for_what_it_wants(
    champion: Served, images: list[bytes]
) -> None:
    first = champion.score(images[0], "?heatmap=true&threshold=-1e9")
    assert first.headers["x-nfbmr-model"] == "parts/1"
    assert (first.json()["rejected"], first.json()["threshold"]) == (True, -1e9)
    fields = {"heatmap": "true", "threshold": "1e9"}
    second = champion.ask("POST", "/score", files={"image": images[0]}, data=fields).json()
    assert (second["rejected"], second["heatmap"]) == (False, first.json()["heatmap"])
    for kind in ("image/png", "application/octet-stream"):
        raw = champion.ask("POST", "/score", data=images[0], headers={"content-type": kind}).json()
        assert raw["score"] == pytest.approx(second["score"], rel=1e-5)


def test_requests_are_those_of_mlflow(champion: Served, images: list[bytes], packed: Path) -> None:
    from mlflow_server.packaging.packing import models_of_mlflow

    texts = [base64.b64encode(image).decode() for image in images[:2]]
    columns = {"columns": ["name", "image"], "data": [["a", texts[0]], ["b", texts[1]]]}
    records = [{"image": text} for text in texts]
    bodies = [
        {"inputs": texts},
        {"instances": texts},
        {"inputs": {"image": texts}},
        {"dataframe_split": columns},
        {"dataframe_records": records},
    ]
    table = models_of_mlflow().load_model(str(packed)).predict(texts)
    for body in bodies:
        answers = champion.invoke(body).json()["predictions"]
        assert [list(answer) for answer in answers] == [list(table.columns)] * 2
        assert [answer["score"] for answer in answers] == pytest.approx(list(table["score"]), rel=1e-4)


def test_one_bad_image_among_others_is_an_error_in_its_row(
    champion: Served, images: list[bytes], rows: list[dict[str, Any]], png_claiming: Any
) -> None:
    good = base64.b64encode(images[0]).decode()
    bomb = base64.b64encode(png_claiming(60_000, 60_000)).decode()
    items = [good, "no image", str(rows[0]["path"].decode()), bomb, None, good]
    answer = champion.invoke({"inputs": items})
    assert answer.status_code == 200
    found = answer.json()["predictions"]
    assert [row["error"] is None for row in found] == [True, False, False, False, False, True]
    assert found[0]["score"] == pytest.approx(found[5]["score"], rel=1e-5)
    assert "paths are not read" in found[2]["error"]
    assert "absurdly large" in found[3]["error"]


def bad_requests(png_claiming: Any, image: bytes) -> dict[str, tuple[int, dict[str, Any]]]:
    json_type = {"content-type": "application/json"}
    binary = {"content-type": "application/octet-stream"}

    def upload(body: bytes, **more: Any) -> dict[str, Any]:
        return {"path": "/score", "data": body, "headers": binary, **more}

    def invocation(body: bytes | str) -> dict[str, Any]:
        return {"path": "/invocations", "data": body, "headers": json_type}

    return {
        "not an image": (422, upload(b"good morning")),
        "a damaged image": (422, upload(image[: len(image) // 2])),
        "a decompression bomb": (413, upload(png_claiming(60_000, 60_000))),
        "100 MB": (413, upload(bytes(100_000_000))),
        "100 MB of unknown length": (413, upload(bytes(1_000_000) for _ in range(100))),
        "100 MB of JSON": (413, invocation(b'{"inputs": ["' + b"A" * 100_000_000 + b'"]}')),
        "nothing": (400, upload(b"")),
        "text": (415, {"path": "/score", "data": "x", "headers": {"content-type": "text/plain"}}),
        "no such parameter": (400, upload(image, params={"treshold": 1})),
        "no number": (400, upload(image, params={"threshold": "high"})),
        "two images": (400, {"path": "/score", "files": [("image", image), ("image", image)]}),
        "no JSON": (400, invocation("{")),
        "wrong JSON": (400, invocation('{"images": []}')),
        "a word for images": (400, invocation('{"inputs": "x"}')),
        "a word for a number": (400, invocation('{"inputs": [], "params": {"threshold": "x"}}')),
        "no number of JSON's": (400, invocation('{"inputs": [NaN]}')),
        "very deep JSON": (400, invocation("[" * 100_000)),
        "very many values": (413, invocation(b'{"inputs": [' + b"0," * 2_000_000 + b"0]}")),
        "too many images": (413, invocation(json.dumps({"inputs": ["x"] * 33}))),
        "no such place": (404, {"path": "/models", "data": b""}),
        "a form for JSON": (415, {"path": "/invocations", "files": {"image": image}}),
        "a page of another site": (403, upload(image) | {"headers": {"origin": "http://evil.example"}}),
        "another name": (403, upload(image) | {"headers": {"host": "evil.example"}}),
    }


def test_bad_requests_get_clear_answers_and_it_goes_on_serving(
    champion: Served, images: list[bytes], png_claiming: Any
) -> None:
    for what, (status, request) in bad_requests(png_claiming, images[0]).items():
        answer = champion.ask("POST", request.pop("path"), **request)
        assert answer.status_code == status, f"{what}: {answer.status_code} {answer.text}"
        assert answer.json()["error"], what
    assert champion.ask("GET", "/score").status_code == 405
    assert champion.ask("POST", "/ready").status_code == 405
    assert champion.score(images[0]).status_code == 200
    assert "Traceback" not in champion.log.read_text()


def test_two_hundred_at_once_are_answered_or_turned_away(champion: Served, images: list[bytes]) -> None:
    (listener,) = champion.children("ray::RayListener")
    everybody = threading.Barrier(200)
    statuses: list[int] = []
    sizes: list[int] = []

    def ask() -> None:
        everybody.wait()
        answer = champion.score(images[0], "?heatmap=true")
        statuses.append(answer.status_code)
        if answer.status_code == 503:
            assert answer.headers["retry-after"] == "1"

    threads = [threading.Thread(target=ask) for _ in range(200)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        sizes.append(listener.memory_info().rss)
        time.sleep(0.05)
    assert len(statuses) == 200
    assert set(statuses) == {200, 503}
    assert Counter(statuses)[200] >= 12
    assert max(sizes) < 600_000_000
    assert champion.score(images[0]).status_code == 200
    assert champion.ask("GET", "/ready").json()["requests"] == 0


def test_what_listens_has_nothing_of_prediction_and_replicas_nothing_of_tracking(champion: Served) -> None:
    (listener,) = champion.children("ray::RayListener")
    mapped = " ".join(region.path for region in listener.memory_maps())
    assert "libtorch" not in mapped
    assert "/mlflow/" not in mapped
    for replica in champion.children("ray::ServeReplica"):
        mapped = " ".join(region.path for region in replica.memory_maps())
        assert "libtorch" in mapped
        assert "sqlalchemy" not in mapped


def test_a_replica_that_dies_costs_nobody_an_answer(champion: Served, images: list[bytes]) -> None:
    champion.until(lambda: len(champion.children("ray::ServeReplica")) == 2, "two replicas")
    with clients(champion, images[0], 4) as said:
        time.sleep(1)
        victim = champion.children("ray::ServeReplica")[0]
        victim.kill()
        champion.until(
            lambda: (
                len(champion.children("ray::ServeReplica")) == 2
                and victim.pid not in [each.pid for each in champion.children("ray::ServeReplica")]
            ),
            "another replica",
        )
    assert {status for mine in said for status, _ in mine} == {200}


def test_a_promoted_version_is_taken_without_a_dropped_request(
    champion: Served, shelf: str, images: list[bytes]
) -> None:
    assert champion.version() == "1"
    with clients(champion, images[0], 6) as said:
        for number in ("2", "3"):
            time.sleep(1)
            move(shelf, number)
            champion.until(partial(is_served, champion, number), f"version {number}")
        time.sleep(1)
    for versions in versions_seen(said):
        assert versions in (["parts/1", "parts/2", "parts/3"], ["parts/1", "parts/3"])
    champion.until(lambda: len(champion.children("ray::ServeReplica")) == 2, "old replicas are gone")


def test_a_version_that_does_not_load_changes_nothing(
    champion: Served, shelf: str, images: list[bytes], tiny: Callable[..., Any]
) -> None:
    before = champion.version()
    move(shelf, damaged_version(shelf, tiny))
    champion.until(lambda: "goes on answering" in champion.log.read_text(), "the failure is told")
    assert champion.version() == before
    assert champion.score(images[0]).status_code == 200
    move(shelf, before)


def test_what_listens_comes_back_when_it_dies(champion: Served, images: list[bytes]) -> None:
    before = champion.version()
    champion.children("ray::RayListener")[0].kill()
    champion.until(lambda: champion.version() == before, "it answers again")
    assert champion.score(images[0]).status_code == 200


def test_with_a_token_only_who_has_it_may_ask(
    served: Callable[..., Served], runs: Any, images: list[bytes]
) -> None:
    running = served(str(runs.first), "--host", "0.0.0.0", NFBMR_SERVE_TOKEN=TOKEN)
    assert running.ask("GET", "/ready").json()["token"] is True
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        refused = running.score(images[0], headers=headers)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    answer = running.score(images[0], headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert answer.headers["x-nfbmr-model"] == runs.first.name
    assert TOKEN not in running.log.read_text()
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(90) == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["parts", "--host", "0.0.0.0"], "--token-file"),
        (["nothing@champion"], "no registered model of that name"),
        (["parts@challenger"], "no version is the challenger"),
        (["parts/9"], "no such version"),
        (["parts@"], "neither a registered model nor"),
    ],
)
def test_what_cannot_be_served_is_said_at_once(
    shelf: str, tmp_path: Path, words: list[str], what: str
) -> None:
    completed = subprocess.run(
        command("--port", "0", *words),
        cwd=tmp_path,
        env=environment(MLFLOW_TRACKING_URI=shelf),
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 2
    assert what in completed.stderr


def test_a_port_that_is_taken(shelf: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        completed = subprocess.run(
            command("parts", "--port", str(taken.getsockname()[1])),
            cwd=tmp_path,
            env=environment(MLFLOW_TRACKING_URI=shelf),
            capture_output=True,
            text=True,
            check=False,
        )
    assert completed.returncode == 2
    assert "cannot listen there" in completed.stderr
