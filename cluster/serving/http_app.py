"""What answers HTTP: requests that are checked, let in, and handed to a replica. FastAPI knows the paths.

Nothing of a model is imported here, and no image is looked at: a body is counted while it comes in, and goes
to a replica as it is. What is left of a refused one is thrown away by uvicorn, so that the sender hears why.
``/docs`` shows all paths, from ``/openapi.json``.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from cluster.serving.invocations import Invocation
from cluster.serving.messages import HttpError, Job, Reply, first_problem
from cluster.serving.page import PAGE, POLICY, docs_page
from cluster.serving.request_limiter import RequestLimiter
from cluster.serving.settings import ServingSettings
from cluster.serving.uploads import Options, job_of
from nfbmr.addresses import is_loopback
from nfbmr.text import size_of

BODY_SECONDS = 30.0
"""In which a body has to arrive: who sends slower holds a place that others could use."""

_BEARER = HTTPBearer(auto_error=False, description="Asked for beyond the machine that serves.")
_SOON = {"retry-after": "1"}
_IMAGE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"image": _IMAGE}, "required": ["image"]}
_SCORE_BODY = {"multipart/form-data": {"schema": _FORM}, "application/octet-stream": {"schema": _IMAGE}}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "the request cannot be understood"},
    413: {"description": "the request, or an image, is too large"},
    415: {"description": "another kind of content is meant"},
    503: {"description": "no room, or no replica: ask again in a moment"},
}

log = logging.getLogger(__name__)


class UnavailableError(Exception):
    """No replica can answer now."""


@dataclass(frozen=True)
class ModelInfo:
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


class ActiveModel:
    """A model that answers, and the requests that it has yet to answer.

    Args:
        info: What is said of it.
        ask: Hands a request to a replica.
    """

    def __init__(self, info: ModelInfo, ask: Callable[[Job], Awaitable[Reply]]) -> None:
        self.info = info
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


class State(BaseModel):
    """Which model answers, and how busy it is."""

    status: str
    model: str
    version: str | None
    threshold: float | None
    replicas: int
    requests: int
    token: bool


class HttpApp:
    """An ASGI application.

    Args:
        settings: How the model is served.

    Attributes:
        active_model: What answers now; None before the first model is there.
        replicas: That are alive, as far as is known.
        problems: What went wrong since somebody looked, at most a few.
    """

    def __init__(self, settings: ServingSettings) -> None:
        self.settings = settings
        self.active_model: ActiveModel | None = None
        self.replicas = 0
        self.problems: list[str] = []
        self._limiter = RequestLimiter(settings.queue, settings.memory_for_requests)
        self._api = _api(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        answer: Any = self._api
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the server leaves out the body
        try:
            self._check_sender(Headers(scope=scope))
        except HttpError as error:
            answer = _response(error)
        except ValueError:  # of urlsplit: whoever asks may send anything as a host
            answer = _response(HttpError(400, "the header Host or Origin is no address"))

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({"x-content-type-options": "nosniff", "cache-control": "no-store"})
            await send(message)

        await answer(scope, receive, send_guarded)

    def state(self) -> State:
        """What ``/ready`` says."""
        if self.active_model is None or not self.replicas:
            raise HttpError(503, "no replica has loaded the model", "ask again in a moment")
        info, inside = self.active_model.info, self._limiter.inside
        token = self.settings.token is not None
        return State(
            status="ready",
            model=info.name,
            version=info.version,
            threshold=info.threshold,
            replicas=self.replicas,
            requests=inside,
            token=token,
        )

    async def answer(self, request: Request, job_from: Callable[[bytes], Job]) -> Response:
        """Let a request in, read it, and hand it to a replica."""
        limit, promised = self.settings.max_body, request.headers.get("content-length", "")
        length = int(promised) if promised.isdigit() else limit
        if length > limit:
            raise _too_large(limit)
        try:
            with self._limiter.acquire(length):
                reply, label = await self._ask(job_from(await _body(request, limit)))
        except HttpError:
            raise
        except Exception as error:
            self._note(f"{request.url.path}: {type(error).__name__}: {error}")
            raise HttpError(500, "this request could not be answered") from error
        headers = {"x-nfbmr-model": label.encode("ascii", "replace").decode()}
        return Response(reply.body, reply.status, headers, "application/json")

    async def _ask(self, job: Job) -> tuple[Reply, str]:
        seconds = self.settings.seconds
        try:
            async with asyncio.timeout(seconds):
                while True:
                    # Taken anew each time: a model that was replaced meanwhile is not asked again.
                    active_model = self.active_model
                    if active_model is None:
                        raise HttpError(503, "no model is loaded yet", "ask again in a moment", _SOON)
                    try:
                        return await active_model.answer(job), active_model.info.label
                    except UnavailableError as error:
                        self._note(f"a replica did not answer, and the request goes to another ({error})")
                        await asyncio.sleep(0.2)
        except TimeoutError:
            raise HttpError(503, f"no answer within {seconds:g} s", "ask again in a moment", _SOON) from None
        except asyncio.CancelledError:  # the listener's grace is over
            raise HttpError(503, "this server ends", "ask another one, or again in a moment", _SOON) from None

    def _check_sender(self, headers: Headers) -> None:
        """Refuse pages of other sites, and names that lead a browser here without being ours."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.settings.token is None and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            raise HttpError(
                403, "this model is served to this machine alone", f"ask for {self.settings.host}"
            )
        if origin and urlsplit(origin).netloc.lower() != host.lower():
            raise HttpError(403, "a page of another site may not ask here")

    def _note(self, problem: str) -> None:
        log.warning("%s", problem)
        if len(self.problems) < 20:
            self.problems.append(problem[:500])


def _api(app: HttpApp) -> FastAPI:
    """The paths, and what is said of them."""

    # Asynchronous, though it waits for nothing: FastAPI hands a plain function to another thread.
    async def check_token(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        token, said = app.settings.token, "" if given is None else given.credentials
        if token is not None and not hmac.compare_digest(said.encode(), token.encode()):
            fix, headers = "send the header Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"}
            raise HttpError(401, "a token is asked for here", fix, headers)

    api = FastAPI(title="nfbmr serve", docs_url=None, redoc_url=None)
    asked: dict[str, Any] = {"dependencies": [Depends(check_token)], "responses": _REFUSALS}

    @api.get("/", response_class=HTMLResponse, summary="A page to try images on")
    async def page() -> Response:
        return HTMLResponse(PAGE, headers={"content-security-policy": POLICY})

    @api.get("/docs", response_class=HTMLResponse, summary="This page")
    async def docs() -> Response:
        return HTMLResponse(docs_page(api.openapi()), headers={"content-security-policy": POLICY})

    @api.get("/health", summary="This process answers")
    @api.get("/ping", summary="The same, as MLflow's servers call it")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/ready", summary="A model answers: which, with how many replicas")
    async def ready() -> State:
        return app.state()

    score_body = {"requestBody": {"required": True, "content": _SCORE_BODY}}

    @api.post(
        "/score", summary="Score one image, sent as a form or as bytes", openapi_extra=score_body, **asked
    )
    async def score(request: Request, options: Annotated[Options, Query()]) -> Response:
        kind = request.headers.get("content-type", "")
        return await app.answer(request, lambda body: job_of(kind, options, body))

    schema = Invocation.model_json_schema()
    invocation_body = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}

    @api.post(
        "/invocations", summary="As mlflow models serve takes it", openapi_extra=invocation_body, **asked
    )
    async def invocations(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            said = kind[:60] or "anything"
            raise HttpError(415, f"JSON is meant, not {said}", "Content-Type: application/json")
        return await app.answer(request, lambda body: Job("invocations", body))

    async def of_ours(_: Request, error: Any) -> Response:
        return _response(error)

    async def of_options(_: Request, error: Any) -> Response:
        fix = f"there are {' and '.join(Options.model_fields)}"
        return _response(HttpError(400, first_problem(error.errors()), fix))

    async def of_paths(request: Request, error: Any) -> Response:
        paths = ", ".join(getattr(route, "path", "") for route in api.routes)
        what = f"{request.method} {request.url.path[:100]}: {error.detail.lower()}"
        return _response(HttpError(error.status_code, what, f"there are {paths}", error.headers or {}))

    api.add_exception_handler(HttpError, of_ours)
    api.add_exception_handler(RequestValidationError, of_options)
    api.add_exception_handler(HTTPException, of_paths)
    return api


def _response(error: HttpError) -> Response:
    return JSONResponse({"error": error.what, "fix": error.fix or None}, error.status, dict(error.headers))


def _too_large(limit: int) -> HttpError:
    return HttpError(
        413, f"a request may have {size_of(limit)} at most", "send fewer images, or smaller ones"
    )


async def _body(request: Request, limit: int) -> bytes:
    """All of a body.

    Raises:
        HttpError: It is too long, too slow, or breaks off.
    """
    parts: list[bytes] = []
    read = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                read += len(part)
                if read > limit:
                    raise _too_large(limit)
                parts.append(part)
    except TimeoutError:
        raise HttpError(408, f"the request did not arrive within {BODY_SECONDS:.0f} s") from None
    except ClientDisconnect:
        raise HttpError(400, "the request broke off") from None
    return b"".join(parts)
