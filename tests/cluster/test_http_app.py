"""What answers HTTP, over a real socket, with a model that answers at once."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from uvicorn import Config, Server

from cluster.serving.http_app import ActiveModel, HttpApp, ModelInfo
from cluster.serving.messages import Job, Reply
from cluster.serving.settings import ServingSettings
from nfbmr.sockets import bound_socket

TOKEN = "a-token-of-some-length"


async def echo(job: Job) -> Reply:
    """An answer that says what was asked."""
    said = {"kind": job.kind, "bytes": len(job.body), "threshold": job.threshold, "heatmap": job.heatmap}
    return Reply(200, json.dumps(said).encode())


@contextmanager
def serving(settings: ServingSettings, ask: Any = echo) -> Iterator[tuple[HttpApp, str]]:
    """The application on a free port of loopback, and its address."""
    app = HttpApp(settings)

    async def run(server: Server, listener: Any) -> None:
        app.active_model, app.replicas = ActiveModel(ModelInfo("parts", "3", 1.5), ask), 1
        await server.serve(sockets=[listener])

    with bound_socket("127.0.0.1", 0, Exception) as listener:  # type: ignore[arg-type]
        server = Server(Config(app, lifespan="off", ws="none", log_config=None))
        thread = threading.Thread(target=lambda: asyncio.run(run(server, listener)), daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        try:
            yield app, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(ServingSettings(max_body=1_000_000)) as (_, address):
        yield address


def post(address: str, **options: Any) -> requests.Response:
    return requests.post(f"{address}/score", timeout=30, **options)


def test_every_path_is_in_the_schema_and_on_its_page(address: str) -> None:
    schema = requests.get(f"{address}/openapi.json", timeout=30).json()
    assert {"/", "/health", "/ping", "/ready", "/score", "/invocations"} <= set(schema["paths"])
    names = {each["name"] for each in schema["paths"]["/score"]["post"]["parameters"]}
    assert names == {"threshold", "heatmap"}
    page = requests.get(f"{address}/docs", timeout=30)
    assert page.headers["content-type"].startswith("text/html")
    assert all(path in page.text for path in schema["paths"])
    assert "http" not in page.text.replace("<!doctype html>", "")  # nothing from anywhere else


def test_an_image_comes_as_a_form_or_as_bytes(address: str) -> None:
    form = post(address, files={"image": b"abc"}, data={"heatmap": "true", "threshold": "2"}).json()
    assert form == {"kind": "score", "bytes": 3, "threshold": 2.0, "heatmap": True}
    raw = post(address, data=b"abcd", params={"threshold": 1.5}, headers={"content-type": "image/png"})
    assert raw.json() == {"kind": "score", "bytes": 4, "threshold": 1.5, "heatmap": False}
    assert raw.headers["x-nfbmr-model"] == "parts/3"
    assert raw.headers["cache-control"] == "no-store"
    assert post(address, data=b"a", params="heatmap").json()["heatmap"] is True


@pytest.mark.parametrize(
    ("status", "options"),
    [
        (400, {"data": b""}),
        (400, {"data": b"a", "params": {"treshold": 1}}),
        (400, {"data": b"a", "params": {"threshold": "high"}}),
        (400, {"data": b"a", "params": {"threshold": "nan"}}),
        (400, {"files": [("image", b"a"), ("image", b"b")]}),
        (400, {"files": {"image": b"a"}, "data": {"colour": "red"}}),
        (403, {"data": b"a", "headers": {"origin": "http://evil.example"}}),
        (403, {"data": b"a", "headers": {"host": "evil.example"}}),
        (400, {"data": b"a", "headers": {"origin": "http://[::1"}}),
        (413, {"data": bytes(30_000_000)}),
        (413, {"data": (bytes(1_000_000) for _ in range(30))}),
        (415, {"data": b"a", "headers": {"content-type": "text/plain"}}),
    ],
)
def test_refusals_say_what_was_wrong(address: str, status: int, options: dict[str, Any]) -> None:
    answer = post(address, **options)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    assert requests.get(f"{address}/ready", timeout=30).json()["requests"] == 0


def test_other_paths_and_methods(address: str) -> None:
    missing = requests.get(f"{address}/models", timeout=30)
    assert (missing.status_code, "/score" in missing.json()["fix"]) == (404, True)
    wrong = requests.get(f"{address}/score", timeout=30)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    head = requests.head(f"{address}/health", timeout=30)
    assert (head.status_code, head.content) == (200, b"")


def test_where_a_token_is_asked_for() -> None:
    with serving(ServingSettings(token=TOKEN)) as (_, address):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
            refused = post(address, data=b"a", headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert post(address, data=b"a", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        schema = requests.get(f"{address}/openapi.json", timeout=30).json()
        assert schema["paths"]["/score"]["post"]["security"]


def test_who_comes_when_all_places_are_taken_is_turned_away() -> None:
    free = threading.Event()

    async def slow(job: Job) -> Reply:
        while not free.is_set():
            await asyncio.sleep(0.01)
        return await echo(job)

    with serving(ServingSettings(queue=1), slow) as (_, address):
        first = threading.Thread(target=post, args=(address,), kwargs={"data": b"a"})
        first.start()
        while requests.get(f"{address}/ready", timeout=30).json()["requests"] == 0:
            time.sleep(0.01)
        second = post(address, data=b"a")
        free.set()
        first.join()
        assert (second.status_code, second.headers["retry-after"]) == (503, "1")


def test_a_failure_is_no_traceback_for_the_one_who_asks() -> None:
    async def broken(job: Job) -> Reply:
        raise ValueError("secret")

    with serving(ServingSettings(), broken) as (app, address):
        answer = post(address, data=b"a")
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "secret" in app.problems[0]
