"""A model served by this process alone, without Ray: for one machine that has little memory to spare.

One thread listens, others compute. A new version is loaded beside the old one; requests go to it from then
on, and the old one is let go when it owes nobody an answer. What ends this process ends the server: who
starts it (systemd, a container's restart policy) starts it again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from cluster.serving.http_app import ActiveModel, ModelInfo
from cluster.serving.listener import Listener, new_event_loop
from cluster.serving.settings import ServingSettings
from nfbmr.errors import ServingError
from nfbmr.model_source import ServedModel

log = logging.getLogger(__name__)
T = TypeVar("T")


class LocalService:
    """A model and the listener in front of it.

    Args:
        settings: How models are served.
        port: To listen on.
        model: The first one.

    Raises:
        ServingError: It does not load.
    """

    def __init__(self, settings: ServingSettings, port: int, model: ServedModel) -> None:
        self._settings, self._port = settings, port
        self._loop = new_event_loop()
        self._listener = Listener(settings)
        threading.Thread(target=self._loop.run_forever, name="listener", daemon=True).start()
        self._activate(model)
        self._in_loop(self._listener.listen(port))

    def replace(self, model: ServedModel) -> None:
        """Serve another model from now on."""
        self._activate(model)

    def look(self) -> None:
        """See that the port is open; what goes wrong with a request is in this process's log already."""
        if not self._listener.listening:
            log.warning("what listens was started again")
            self._in_loop(self._listener.listen(self._port))

    def close(self) -> None:
        """Answer what is under way, for as long as the listener's grace lasts, and end."""
        try:
            self._in_loop(self._end())
        finally:  # whoever asks a second time does not wait
            self._replica.close()
            self._loop.call_soon_threadsafe(self._loop.stop)

    async def _end(self) -> None:
        """Take no more requests; those that take too long are told so."""
        await self._listener.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        if rest:
            await asyncio.wait(rest, timeout=1.0)  # they say that it ends
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    def _activate(self, model: ServedModel) -> None:
        """Load a model, and let it answer.

        Raises:
            ServingError: It cannot be loaded.
        """
        from cluster.serving.replica import Replica

        try:
            replica = Replica(str(model.folder.resolve()), **self._settings.of_replica)
        except Exception as error:  # whatever a damaged file brings about
            words = f"{type(error).__name__}: {error}".splitlines()[0]
            fix = getattr(error, "fix", None) or "does nfbmr predict load it?"
            raise ServingError(f"the model does not load ({words})", where=str(model), fix=fix) from error
        info = ModelInfo(model.name, model.version, replica.threshold)
        self._in_loop(self._listener.activate(ActiveModel(info, replica)))
        self._replica = replica

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
