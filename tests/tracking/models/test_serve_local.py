"""``nfbmr serve --local``: one process answers, follows its alias, and ends when it is told to."""

from __future__ import annotations

import base64
import io
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from PIL import Image

from tests.tracking.models.serving import (
    Served,
    clients,
    command,
    damaged_version,
    environment,
    is_served,
    move,
    versions_seen,
)

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def champion(served: Callable[..., Served], shelf: str) -> Served:
    words = ("--local", "--queue", "12", "--watch", "0.5")
    return served("parts@champion", *words, MLFLOW_TRACKING_URI=shelf, OMP_NUM_THREADS="2")


def test_one_process_without_ray_gives_the_scores_of_the_evaluation(
    champion: Served, rows: list[dict[str, Any]], images: list[bytes]
) -> None:
    for row, image in zip(rows, images, strict=True):
        scored = champion.score(image).json()
        assert scored["score"] == pytest.approx(row["score"], rel=1e-4, abs=1e-5)
        assert scored["rejected"] == row["rejected"]
    ready = champion.ask("GET", "/ready").json()
    assert (ready["version"], ready["replicas"], ready["requests"]) == ("1", 1, 0)
    process = psutil.Process(champion.process.pid)
    assert not process.children(recursive=True)
    assert "/ray/" not in " ".join(region.path for region in process.memory_maps())


def test_who_asks_at_once_gets_the_score_of_his_own_image(
    champion: Served, rows: list[dict[str, Any]], images: list[bytes]
) -> None:
    asked = [number % len(images) for number in range(60)]
    with ThreadPoolExecutor(6) as pool:
        scored = list(pool.map(lambda number: champion.score(images[number]).json()["score"], asked))
    assert scored == pytest.approx([rows[number]["score"] for number in asked], rel=1e-4, abs=1e-5)


def test_a_promoted_version_is_taken_without_a_dropped_request(
    champion: Served, shelf: str, images: list[bytes], tiny: Callable[..., Any]
) -> None:
    with clients(champion, images[0], 4) as said:
        move(shelf, "2")
        champion.until(partial(is_served, champion, "2"), "version 2")
        move(shelf, damaged_version(shelf, tiny))
        champion.until(lambda: "goes on answering" in champion.log.read_text(), "the failure is told")
        assert champion.version() == "2"
    assert versions_seen(said) == [["parts/1", "parts/2"]] * 4


def busy_with(served: Served, side: int) -> tuple[threading.Thread, list[requests.Response]]:
    """A thread that asks for 32 heat maps, once the request is under way, and where its answer comes."""
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "PNG")
    body = {"inputs": [base64.b64encode(file.getvalue()).decode()] * 32, "params": {"heatmap": True}}
    answers: list[requests.Response] = []

    def ask() -> None:
        with suppress(requests.ConnectionError):
            answers.append(served.invoke(body))

    asking = threading.Thread(target=ask)
    asking.start()
    served.until(lambda: served.ask("GET", "/ready").json()["requests"], "the request is under way", 30)
    return asking, answers


def test_what_is_under_way_is_answered_when_it_ends(champion: Served) -> None:
    asking, answers = busy_with(champion, 1500)
    assert not answers
    champion.process.send_signal(signal.SIGINT)
    asking.join()
    assert champion.process.wait(60) == 0
    assert [len(answer.json()["predictions"]) for answer in answers] == [32]


def test_who_is_told_twice_ends_at_once(served: Callable[..., Served], runs: Any) -> None:
    running = served(str(runs.first), "--local")
    asking, answers = busy_with(running, 4000)
    running.process.send_signal(signal.SIGINT)
    running.until(lambda: "is answered" in running.log.read_text(), "it is heard", 30)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 130
    asking.join()
    assert [answer.status_code for answer in answers] in ([], [503])


def test_one_process_holds_one_model(tmp_path: Path) -> None:
    completed = subprocess.run(
        command("parts", "--local", "--replicas", "2"),
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 2
    assert "leave out --local" in completed.stderr
