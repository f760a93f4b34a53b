"""What answers HTTP: the page, health, and requests that are checked, let in, and handed to a replica.

::

    GET  /              a page to try images on
    GET  /health        this process answers (also /ping)
    GET  /ready         a model answers: its name and version, how many replicas
    POST /score         one image, as a form or as bytes; ?threshold= and ?heatmap=
    POST /invocations   as ``mlflow models serve`` takes it

Nothing of a model is imported here, and no image is looked at: a body is counted while it comes in, and goes
to a replica as it is.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cluster.serving.admission import Admission
from cluster.serving.messages import Job, Refusal, Reply, json_bytes
from cluster.serving.page import PAGE, POLICY
from cluster.serving.settings import ServingSettings
from cluster.serving.uploads import job_of
from nfbmr.addresses import is_loopback
from nfbmr.wording import size_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

DRAINED = 256_000_000
"""Bytes that are read, and thrown away, behind a refusal, so that the sender hears it."""
DRAIN_SECONDS = 20.0
BODY_SECONDS = 30.0
"""In which a body has to arrive: who sends slower holds a place that others could use."""

JSON, HTML = b"application/json", b"text/html; charset=utf-8"
_OPEN = ("/", "/health", "/ping", "/ready")
_ASKED = ("/score", "/invocations")

log = logging.getLogger(__name__)


class UnavailableError(Exception):
    """No replica can answer now."""


@dataclass(frozen=True)
class Shown:
    """What is said of a model.

    Attributes:
        name: Of the registered model, or of the run.
        version: Of the registered model.
        threshold: Of the model.
    """

    name: str
    version: str | None = None
    threshold: float | None = None

    @property
    def label(self) -> str:
        """Name and version in one word."""
        return self.name if self.version is None else f"{self.name}/{self.version}"


class Generation:
    """A model that answers, and the requests that it has yet to answer.

    Args:
        shown: What is said of it.
        ask: Hands a request to a replica.
    """

    def __init__(self, shown: Shown, ask: Callable[[Job], Awaitable[Reply]]) -> None:
        self.shown = shown
        self._ask = ask
        self._open = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def answer(self, job: Job) -> Reply:
        """Ask, and count while there is no answer."""
        self._open += 1
        self._idle.clear()
        try:
            return await self._ask(job)
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()

    async def drained(self) -> None:
        """Wait until it owes nobody an answer."""
        await self._idle.wait()


class Front:
    """An ASGI application.

    Args:
        settings: How the model is served.

    Attributes:
        generation: What answers now; None before the first model is there.
        replicas: That are alive, as far as is known.
        problems: What went wrong since somebody looked, at most a few.
    """

    def __init__(self, settings: ServingSettings) -> None:
        self.settings = settings
        self.generation: Generation | None = None
        self.replicas = 0
        self.problems: list[str] = []
        self._door = Admission(settings.queue, settings.memory_for_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        if scope["type"] != "http":
            return
        body = _Body(receive, self.settings.max_body)
        headers: tuple[tuple[bytes, bytes], ...] = ()
        try:
            reply, kind, headers = await self._respond(scope, body)
        except Refusal as refusal:
            reply, kind, headers = refusal.reply(), JSON, refusal.headers
        except Exception as error:
            self._note(f"{scope['method']} {scope['path']}: {type(error).__name__}: {error}")
            reply, kind = Refusal(500, "this request could not be answered").reply(), JSON
        await _send(scope, reply, kind, headers, body, send)

    async def _respond(
        self, scope: Scope, body: _Body
    ) -> tuple[Reply, bytes, tuple[tuple[bytes, bytes], ...]]:
        path, method = scope["path"], scope["method"]
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        self._check_sender(headers)
        if path in _OPEN:
            if method not in ("GET", "HEAD"):
                raise Refusal(405, f"{path} is read with GET", headers=((b"allow", b"GET, HEAD"),))
            return self._open(path)
        if path not in _ASKED:
            raise Refusal(404, f"there is no {path[:100]}", f"there are {', '.join((*_OPEN, *_ASKED))}")
        if method != "POST":
            raise Refusal(405, f"{path} takes POST", headers=((b"allow", b"POST"),))
        self._check_token(headers)
        return await self._ask(path, scope["query_string"].decode("latin-1"), headers, body)

    def _open(self, path: str) -> tuple[Reply, bytes, tuple[tuple[bytes, bytes], ...]]:
        if path == "/":
            return Reply(200, PAGE), HTML, ((b"content-security-policy", POLICY),)
        if path != "/ready":
            return Reply(200, json_bytes({"status": "ok"})), JSON, ()
        if self.generation is None or not self.replicas:
            raise Refusal(503, "no replica has loaded the model", "ask again in a moment")
        shown = self.generation.shown
        state = {
            "status": "ready",
            "model": shown.name,
            "version": shown.version,
            "threshold": shown.threshold,
            "replicas": self.replicas,
            "requests": self._door.inside,
            "token": self.settings.token is not None,
        }
        return Reply(200, json_bytes(state)), JSON, ()

    async def _ask(
        self, path: str, query: str, headers: dict[bytes, str], body: _Body
    ) -> tuple[Reply, bytes, tuple[tuple[bytes, bytes], ...]]:
        length = body.promised(headers)
        with self._door.place(length):
            content = await body.whole()
            kind = headers.get(b"content-type", "")
            if path == "/score":
                job = job_of(kind, query, content)
            elif kind.partition(";")[0].strip().lower() == "application/json":
                job = Job("invocations", content)
            else:
                raise Refusal(
                    415, f"JSON is meant, not {kind[:60] or 'anything'}", "Content-Type: application/json"
                )
            del content
            body.forget()
            reply, label = await self._answer(job)
        return reply, JSON, ((b"x-nfbmr-model", label.encode("ascii", "replace")),)

    async def _answer(self, job: Job) -> tuple[Reply, str]:
        try:
            async with asyncio.timeout(self.settings.seconds):
                while True:
                    # Taken anew each time: a model that was replaced meanwhile is not asked again.
                    generation = self.generation
                    if generation is None:
                        raise Refusal(503, "no model is loaded yet", "ask again in a moment", _SOON)
                    try:
                        return await generation.answer(job), generation.shown.label
                    except UnavailableError as error:
                        self._note(f"a replica did not answer, and the request goes to another ({error})")
                        await asyncio.sleep(0.2)
        except TimeoutError:
            raise Refusal(
                503, f"no answer within {self.settings.seconds:g} s", "ask again in a moment", _SOON
            ) from None

    def _check_sender(self, headers: dict[bytes, str]) -> None:
        """Refuse pages of other sites, and names that lead a browser here without being ours."""
        host = headers.get(b"host", "")
        name = urlsplit(f"//{host}").hostname or ""
        if self.settings.token is None and not is_loopback(name):
            raise Refusal(403, "this model is served to this machine alone", f"ask for {self.settings.host}")
        origin = headers.get(b"origin")
        if origin and urlsplit(origin).netloc.lower() != host.lower():
            raise Refusal(403, "a page of another site may not ask here")

    def _check_token(self, headers: dict[bytes, str]) -> None:
        token = self.settings.token
        if token is None:
            return
        scheme, _, given = headers.get(b"authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1"), token.encode())
        if scheme.lower() != "bearer" or not right:
            raise Refusal(
                401,
                "a token is asked for here",
                "send the header Authorization: Bearer TOKEN",
                ((b"www-authenticate", b"Bearer"),),
            )

    def _note(self, problem: str) -> None:
        log.warning("%s", problem)
        if len(self.problems) < 20:
            self.problems.append(problem[:500])


_SOON = ((b"retry-after", b"1"),)


class _Body:
    """A request's body as it comes in, counted."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._parts: list[bytes] = []
        self.more = True

    def promised(self, headers: dict[bytes, str]) -> int:
        """How long it is going to be; as long as allowed where the sender does not say.

        Raises:
            Refusal: Longer than allowed.
        """
        length = headers.get(b"content-length", "")
        if not length.isdigit():
            return self._limit
        if int(length) > self._limit:
            raise self._too_large()
        return int(length)

    async def whole(self) -> bytes:
        """All of it.

        Raises:
            Refusal: It is too long, too slow, or breaks off.
        """
        read = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while self.more:
                    message = await self._next()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "the request broke off")
                    read += len(message.get("body", b""))
                    if read > self._limit:
                        self.forget()
                        raise self._too_large()
                    self._parts.append(message.get("body", b""))
        except TimeoutError:
            raise Refusal(408, f"the request did not arrive within {BODY_SECONDS:.0f} s") from None
        return b"".join(self._parts)

    async def drain(self) -> None:
        """Read what is left, and throw it away."""
        self.forget()
        drained = 0
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while self.more and drained < DRAINED:
                    drained += len((await self._next()).get("body", b""))
        except TimeoutError:
            pass

    def forget(self) -> None:
        """Let go of what was read."""
        self._parts = []

    async def _next(self) -> Message:
        message = await self._receive()
        self.more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    def _too_large(self) -> Refusal:
        return Refusal(
            413, f"a request may have {size_of(self._limit)} at most", "send fewer images, or smaller ones"
        )


async def _send(
    scope: Scope,
    reply: Reply,
    kind: bytes,
    headers: tuple[tuple[bytes, bytes], ...],
    body: _Body,
    send: Send,
) -> None:
    unread = body.more and scope["method"] not in ("GET", "HEAD")
    start = [
        (b"content-type", kind),
        (b"content-length", str(len(reply.body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"cache-control", b"no-store"),
        *((b"connection", b"close") for _ in range(unread)),
        *headers,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": start})
    content = b"" if scope["method"] == "HEAD" else reply.body
    await send({"type": "http.response.body", "body": content, "more_body": unread})
    if unread:
        # Whoever is still sending would see a broken connection instead of these words.
        await body.drain()
        await send({"type": "http.response.body", "body": b""})
