"""A model served by this process alone, without Ray: for one machine that has little memory to spare.

One thread listens, one computes. A new version is loaded beside the old one; requests go to it from then on,
and the old one is let go when it owes nobody an answer. What ends this process ends the server: who starts it
(systemd, a container's restart policy) starts it again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from cluster.serving.http_app import ActiveModel, ModelInfo
from cluster.serving.listener import Listener
from cluster.serving.settings import ServingSettings
from nfbmr.errors import ServingError
from nfbmr.model_source import ModelSource, ServedModel

log = logging.getLogger(__name__)
T = TypeVar("T")


class LocalService:
    """A model and the listener in front of it.

    Args:
        source: Of the models.
        settings: How they are served.
        port: To listen on.
        model: The first one.

    Raises:
        ServingError: It does not load.
    """

    def __init__(self, source: ModelSource, settings: ServingSettings, port: int, model: ServedModel) -> None:
        self._source, self._settings, self._port, self._model = source, settings, port, model
        self._loop = asyncio.new_event_loop()
        self._listener = Listener(settings)
        threading.Thread(target=self._loop.run_forever, name="listener", daemon=True).start()
        self._activate(model)
        self._in_loop(self._listener.listen(port))

    def replace(self, model: ServedModel) -> None:
        """Serve another model from now on; if it does not load, the old one stays."""
        log.info("loading %s", model)
        try:
            self._activate(model)
        except ServingError as error:
            log.error("%s; %s goes on answering", error, self._model)
            self._source.release(model)
            return
        log.info("%s answers now", model)
        self._source.release(self._model)
        self._model = model

    def look(self) -> None:
        """See that the port is open; what goes wrong with a request is in this process's log already."""
        if not self._listener.listening:
            log.warning("what listens was started again")
            self._in_loop(self._listener.listen(self._port))

    def close(self) -> None:
        """Answer what is under way, and end."""
        self._in_loop(self._listener.close())
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _activate(self, model: ServedModel) -> None:
        """Load a model, and let it answer.

        Raises:
            ServingError: It cannot be loaded.
        """
        from cluster.serving.replica import Replica

        s = self._settings
        try:
            replica = Replica(
                str(model.folder.resolve()),
                device=s.device,
                threads=s.threads_each,
                batch=s.batch,
                max_pixels=s.max_pixels,
                max_images=s.max_images,
            )
        except Exception as error:  # whatever a damaged file brings about
            words = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ServingError(
                f"the model does not load ({words})", where=str(model), fix="does nfbmr predict load it?"
            ) from error
        info = ModelInfo(model.name, model.version, replica.threshold)
        self._in_loop(self._listener.activate(ActiveModel(info, replica)))

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
