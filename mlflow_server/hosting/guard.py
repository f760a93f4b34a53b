"""What stands in front of MLflow: the rules that plain ``mlflow server`` lacks.

tests/hosting/test_plain.py shows each of them missing there.

| rule | plain MLflow |
|---|---|
| parts that a server of runs and models has no use for are closed | some run commands on the host |
| a page of another site changes nothing | pages of this machine's other ports may |
| whoever is removed is asked who they are | hears 404 as long as their password is remembered |
| a stranger's request is not read | it is read to its end before anybody is asked who they are |
| only writers make experiments and registered models | every user does, and owns them |
| a request is at most as large as was agreed | any size is taken |
| a new experiment keeps its artifacts where the server does | in any folder of the host, and shows it |

MLflow's pages ask, when they open, for some of what is closed. They are answered that there is nothing, so
that no page opens on an error; nothing is written into the pages themselves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]
"""An ASGI application."""

API_LIMIT = 32 * 10**6
"""Bytes of a request that is no artifact; a batch of MLflow's client has at most one million."""

DRAINED = 64 * 10**6
"""Bytes of a refused upload that are read and thrown away, so that its sender hears the answer."""

_READS = ("GET", "HEAD", "OPTIONS")
_API = re.compile(r"^/(?:ajax-)?api/\d+\.\d+(/.*)$")
_ARTIFACT = re.compile(r"^/mlflow-artifacts/artifacts(/|$)")
_CLOSED = re.compile(
    r"^/(?:gateway|v1|signup)(?:/|$)"
    r"|^(?:/(?:ajax-)?api/\d+\.\d+)?/mlflow/"
    r"(?:assistant|gateway|gateway-proxy|jobs|webhooks|mcp-servers|scorers?|genai|demo|promptlab|issues"
    r"|prompt-optimization|users/create-ui|runs/create-promptlab-run)(?:/|$)"
)
_EXPERIMENTS = "/mlflow/experiments/create"
_CREATES = (_EXPERIMENTS, "/mlflow/registered-models/create", "/mlflow/datasets/create")

NOTHING: Mapping[str, Mapping[str, Any]] = {
    "/mlflow/assistant/config": {"providers": {}, "projects": {}, "remote_access_allowed": False},
    "/mlflow/assistant/providers": {"providers": [], "resolved": None, "gateway_vendor_options": {}},
    "/mlflow/gateway-proxy": {"endpoints": []},
}
"""What MLflow's pages ask for when they open and is closed here, with MLflow's own answer for *nothing*."""

NOBODY: Mapping[str, Mapping[str, Any]] = {"/mlflow/users/current": {"user": None, "is_basic_auth": False}}
"""Likewise, where nobody is asked who they are."""


class Guard:
    """An ASGI application around MLflow's.

    Args:
        app: MLflow's application.
        origins: Values of the header ``Origin`` that may change something, besides the server's own.
        max_upload: Size of the largest artifact in bytes.
        may_create: Whether the user of a name may make experiments and registered models; None for nobody
            of that name. None: the server has no users.
    """

    def __init__(
        self,
        app: App,
        *,
        origins: Iterable[str] = (),
        max_upload: int,
        may_create: Callable[[str], bool | None] | None = None,
    ) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._max_upload = max_upload
        self._may_create = may_create
        self._nothing = NOTHING if may_create is not None else {**NOTHING, **NOBODY}

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer a request, or let MLflow answer it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from starlette.requests import ClientDisconnect, Request

        request = Request(scope, receive)
        try:
            answer = self._refusal(request) or await self._refusal_of_user(request)
            if answer is not None:
                await _content(request, 0)
            elif _inner(scope["path"]) == _EXPERIMENTS or "transfer-encoding" in request.headers:
                limit = min(API_LIMIT, self._limit(scope))
                content = await _content(request, limit)
                answer = _too_large(limit) if content is None else _refusal_of_experiment(scope, content)
                receive = _replayed(content or b"", receive)
        except ClientDisconnect:
            return
        await (answer or self._app)(scope, receive, send)

    def _limit(self, scope: _Scope) -> int:
        return self._max_upload if _ARTIFACT.match(_inner(scope["path"])) else API_LIMIT

    def _refusal(self, request: Any) -> App | None:
        path, method, headers = request.scope["path"], request.method, request.headers
        if method == "GET" and _inner(path) in self._nothing:
            from starlette.responses import JSONResponse

            return JSONResponse(self._nothing[_inner(path)], headers={"X-Content-Type-Options": "nosniff"})
        if _CLOSED.match(path):
            return _text(404, "This part of MLflow is closed on this server.")
        if method not in _READS and not self._is_ours(headers.get("origin"), headers.get("host", "")):
            return _text(403, "A page of another site may not change anything here.")
        length = headers.get("content-length", "0")
        limit = self._limit(request.scope)
        return _too_large(limit) if not length.isdigit() or int(length) > limit else None

    def _is_ours(self, origin: str | None, host: str) -> bool:
        if not origin or origin in self._origins:
            return True
        try:
            return urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:  # no address at all
            return False

    async def _refusal_of_user(self, request: Any) -> App | None:
        """Who only reads without credentials is asked for them by MLflow; a body it would read first."""
        authorization = request.headers.get("authorization", "")
        if self._may_create is None or (not authorization and request.method in _READS):
            return None
        from anyio import to_thread
        from werkzeug.datastructures import Authorization  # as MLflow reads it

        given = Authorization.from_header(authorization)
        name = given.username if given is not None and given.type == "basic" else None
        may_create = None if not name else await to_thread.run_sync(self._may_create, name)
        if may_create is None:
            return _text(
                401,
                "Who are you? Give your user name and password "
                "(MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD).",
                {"WWW-Authenticate": 'Basic realm="mlflow"'},
            )
        if request.method not in _READS and _inner(request.scope["path"]) in _CREATES and not may_create:
            return _text(403, "You may look here, and make nothing new. An administrator can let you.")
        return None


def _refusal_of_experiment(scope: _Scope, content: bytes) -> App | None:
    """No new experiment names a folder for its artifacts: MLflow would show whatever lies there."""
    if _inner(scope["path"]) != _EXPERIMENTS:
        return None
    try:
        asked = json.loads(content or b"{}")
    except ValueError:
        return None  # MLflow says what is wrong with it
    place = asked.get("artifact_location") if isinstance(asked, dict) else None
    if not place or str(place).startswith("mlflow-artifacts:/"):
        return None
    return _text(
        400, "Artifacts of an experiment stay where the server keeps them: leave artifact_location out."
    )


async def _content(request: Any, limit: int) -> bytes | None:
    """A request's body; None for one above the limit.

    That is read on for a while: whoever is still sending would see a broken connection, and no answer.
    """
    blocks, read = [], 0
    async for block in request.stream():
        read += len(block)
        if read <= limit:
            blocks.append(block)
        elif read > limit + DRAINED:
            break
    return b"".join(blocks) if read <= limit else None


def _replayed(content: bytes, receive: _Receive) -> _Receive:
    """A body that was read already, once more."""
    left = [content]

    async def replay() -> _Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replay


def _too_large(limit: int) -> App:
    from nfbmr.text import size_of

    return _text(413, f"Too large: this server takes at most {size_of(limit)} in one request.")


def _text(status: int, words: str, headers: Mapping[str, str] | None = None) -> App:
    from starlette.responses import PlainTextResponse

    safe = {"X-Content-Type-Options": "nosniff", "Connection": "close", **(headers or {})}
    return PlainTextResponse(f"{words}\n", status, safe)


def _inner(path: str) -> str:
    """A path without the version of the interface: pages and programs use different ones."""
    match = _API.match(path)
    return match[1] if match else path
