"""What stands in front of MLflow: whatever MLflow itself lets through and a tracking server should not.

Each rule answers before a request's body is read:

- parts of MLflow that a server of runs and models has no use for are closed: some run commands on the host;
- a page of another site may not change anything, whatever this machine's other ports show;
- a path that climbs out of its folder is refused as it was sent, however it is encoded;
- without a user nothing is read, and who may only read changes nothing and makes nothing new;
- a body is at most as large as was agreed;
- a new experiment keeps its artifacts where the server keeps them, not in a folder of the host.

It also lets the pages open on MLflow's side for model training.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

API_LIMIT = 32 * 10**6
"""Bytes of a request that is no artifact; a batch of MLflow's client has at most one million."""

DRAINED = 64 * 10**6
"""Bytes that are read, and thrown away, behind a refused upload, so that the sender hears the answer."""

_READS = ("GET", "HEAD", "OPTIONS")
_API = re.compile(r"^/(?:ajax-)?api/\d+\.\d+(/.*)$")
_ARTIFACT = re.compile(r"^/mlflow-artifacts/artifacts(/|$)")
_OPEN = ("/health", "/static-files/", "/favicon.ico")
_OPEN_API = ("/mlflow/server-info",)
_CLOSED = re.compile(
    r"^/(?:gateway|v1|signup)(?:/|$)"
    r"|^(?:/(?:ajax-)?api/\d+\.\d+)?/mlflow/"
    r"(?:assistant|gateway|gateway-proxy|jobs|webhooks|mcp-servers|scorers?|genai|demo|promptlab|issues"
    r"|prompt-optimization|users/create-ui|runs/create-promptlab-run)(?:/|$)"
)
# Reading that is asked for with POST, because the question is long.
_QUESTIONS = re.compile(
    r"/(?:search|search-datasets|graphql|get-history-bulk(?:-interval)?|batch-get|batchGet\w*|ui-telemetry"
    r"|users/update-password)$"
)
_CREATES = ("/mlflow/experiments/create", "/mlflow/registered-models/create", "/mlflow/datasets/create")

# Keys of MLflow's pages in the browser; a choice that was made is kept. The side for model training, without
# the assistant, which is closed here, and without advertising for what this server is not for.
_CHOICES = {
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "mlflow.home.getting-started.collapsed_v1": True,
    "mlflow.settings.telemetry.enabled_v1": False,
    "mlflow.telemetry.info.alert.dismissed_v1": True,
}
_LOOK = (
    f"<script>try{{for(const[k,v]of Object.entries({json.dumps(_CHOICES)}))"
    "localStorage.getItem(k)===null&&localStorage.setItem(k,JSON.stringify(v))}catch(e){}</script>"
    "<style>[data-assistant-ui]{display:none!important}</style>"
).encode()


@dataclass(frozen=True)
class Rights:
    """What a user may do at all; MLflow decides about each thing.

    Attributes:
        change: Change some thing, at least.
        create: Make new experiments and registered models.
    """

    change: bool
    create: bool


class Guard:
    """An ASGI application around MLflow's.

    Args:
        app: MLflow's.
        origins: Values of the header ``Origin`` that may change something, besides the server's own.
        max_upload: Bytes of the largest artifact.
        rights_of: What a user may do; None for nobody of that name. None: nobody is asked who they are.
    """

    def __init__(
        self,
        app: App,
        *,
        origins: Iterable[str] = (),
        max_upload: int,
        rights_of: Callable[[str], Rights | None] | None = None,
    ) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._max_upload = max_upload
        self._rights_of = rights_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let MLflow."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = await self._refusal(scope)
        if refusal is not None:
            await _answer(refusal, receive, send)
            return
        body = _Body(receive, self._limit(scope))
        receiving: Receive = body
        if _inner(scope["path"]) == _CREATES[0] and scope["method"] == "POST":
            content = await body.whole()
            if not body.exceeded and _names_a_folder(content):
                await _answer(_FOREIGN_FOLDER, receive, send)
                return
            receiving = _again(content, receive)
        await self._pass_on(scope, receiving, send, body)

    async def _pass_on(self, scope: Scope, receiving: Receive, send: Send, body: _Body) -> None:
        answered = False
        front = _FrontPage(send) if scope["method"] == "GET" and scope["path"] == "/" else None

        async def forward(message: Message) -> None:
            nonlocal answered
            if body.exceeded and not answered:
                return  # MLflow's own words about a body that broke off
            answered = True
            await (front(message) if front is not None else send(message))

        try:
            if not body.exceeded:
                await self._app(scope, receiving, forward)
        except Exception:
            if not body.exceeded:
                raise
        if body.exceeded and not answered:
            await _answer(_too_large(body.limit), body.rest, send)

    async def _refusal(self, scope: Scope) -> Refusal | None:
        path, method = scope["path"], scope["method"]
        if _climbs(scope):
            return Refusal(400, "This path is not one that a server would follow.")
        if _CLOSED.match(path):
            return Refusal(404, "This part of MLflow is closed on this server.")
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if method not in _READS and not self._own(headers.get(b"origin"), headers.get(b"host", "")):
            return Refusal(403, "A page of another site may not change anything here.")
        if self._rights_of is not None and not _is_open(path):
            refusal = await self._stranger(path, method, headers.get(b"authorization", ""))
            if refusal is not None:
                return refusal
        length = headers.get(b"content-length", "")
        limit = self._limit(scope)
        return _too_large(limit) if length.isdigit() and int(length) > limit else None

    def _own(self, origin: str | None, host: str) -> bool:
        return not origin or origin in self._origins or urlsplit(origin).netloc.lower() == host.lower()

    async def _stranger(self, path: str, method: str, authorization: str) -> Refusal | None:
        from anyio import to_thread

        name = _user_name(authorization)
        assert self._rights_of is not None
        rights = None if name is None else await to_thread.run_sync(self._rights_of, name)
        if rights is None:
            return _WHO
        inner = _inner(path)
        if method in _READS or _QUESTIONS.search(inner):
            return None
        if not rights.change or (inner in _CREATES and not rights.create):
            return Refusal(403, "You may look here, and not change this. An administrator can let you.")
        return None

    def _limit(self, scope: Scope) -> int:
        return self._max_upload if _ARTIFACT.match(_inner(scope["path"])) else API_LIMIT


@dataclass(frozen=True)
class Refusal:
    """An answer that MLflow is not asked for."""

    status: int
    words: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


_WHO = Refusal(
    401,
    "Who are you? Give your user name and password (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD).",
    ((b"www-authenticate", b'Basic realm="mlflow"'),),
)
_FOREIGN_FOLDER = Refusal(
    400, "Artifacts of an experiment stay where the server keeps them: leave artifact_location out."
)


def _too_large(limit: int) -> Refusal:
    from nfbmr.wording import size_of

    return Refusal(413, f"Too large: this server takes at most {size_of(limit)} in one request.")


class _Body:
    """A request's body as it comes in, counted."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.limit = limit
        self.exceeded = False
        self._receive = receive
        self._bytes = 0
        self._more = True

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._more = message.get("more_body", False)
            if self._bytes > self.limit:
                self.exceeded = True
                raise _TooLargeError
        return message

    async def whole(self) -> bytes:
        """All of it; what came so far where it is too large."""
        parts: list[bytes] = []
        try:
            while self._more:
                message = await self()
                if message["type"] != "http.request":
                    break
                parts.append(message.get("body", b""))
        except _TooLargeError:
            pass
        return b"".join(parts)

    async def rest(self) -> Message:
        """What follows, to be thrown away."""
        return await self._receive() if self._more else {"type": "http.request", "more_body": False}


class _TooLargeError(Exception):
    """A body grew beyond what was agreed."""


class _FrontPage:
    """The front page, with one line more."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}
        self._parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        body = b"".join(self._parts)
        headers = [(name, value) for name, value in self._start["headers"] if name != b"content-length"]
        if self._start["status"] == 200 and b"<head>" in body:
            body = body.replace(b"<head>", b"<head>" + _LOOK, 1)
            # The page is another one than the file whose tag and date these are.
            headers = [item for item in headers if item[0] not in (b"etag", b"last-modified")]
        headers.append((b"content-length", str(len(body)).encode()))
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


async def _answer(refusal: Refusal, receive: Receive, send: Send) -> None:
    body = (refusal.words + "\n").encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"connection", b"close"),
        *refusal.headers,
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    # Whoever is still sending would see a broken connection instead of these words.
    drained, more = 0, True
    while more and drained < DRAINED:
        message = await receive()
        drained += len(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
    await send({"type": "http.response.body", "body": b""})


def _again(content: bytes, receive: Receive) -> Receive:
    """A body that was read already, once more."""
    left = [content]

    async def replay() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replay


def _inner(path: str) -> str:
    """A path without the version of the interface: pages and programs use different ones."""
    match = _API.match(path)
    return match[1] if match else path


def _is_open(path: str) -> bool:
    return path.startswith(_OPEN) or _inner(path) in _OPEN_API


def _user_name(authorization: str) -> str | None:
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, _ = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return name if colon else None


def _climbs(scope: Scope) -> bool:
    """Whether a path, or a path in a question, has a step upwards in it, encoded once or more often."""
    raw = scope.get("raw_path") or scope["path"].encode()
    texts = [raw.decode("latin-1").partition("?")[0]]
    texts += [value for name, value in parse_qsl(scope["query_string"].decode("latin-1")) if "path" in name]
    return any(_is_climbing(text) for text in texts)


def _is_climbing(text: str) -> bool:
    for _ in range(8):
        if "\\" in text or "\0" in text or ".." in text.split("/"):
            return True
        decoded = unquote(text)
        if decoded == text:
            return False
        text = decoded
    return True


def _names_a_folder(content: bytes) -> bool:
    """Whether a new experiment asks for its artifacts to be kept somewhere of its own."""
    try:
        asked = json.loads(content or b"{}")
    except ValueError:
        return False  # MLflow says what is wrong with it
    place = asked.get("artifact_location") if isinstance(asked, dict) else None
    return bool(place) and not str(place).startswith("mlflow-artifacts:/")
