"""Who may compute something that several machines share, over an object store that has no locks.

The bakery algorithm (Lamport, *A New Solution of Dijkstra's Concurrent Programming Problem*, 1974), on
objects::

    <prefix>/claims/<what>.choosing.<id>    somebody is about to take a number
                    <what>.<number>.<id>    somebody has one; the lowest is served

It needs no more than that an object is listed as soon as it is written, and no longer once it is removed; S3
has promised both since 2020. Whoever has a number writes it again every few seconds. One that has not been
written for a minute, by the server's clock, belongs to a machine that is gone, and is cleared away. A machine
that only slept so long finds that somebody else has computed the same: that costs time and does no harm.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from nfbmr.errors import Interrupted, StoreError
from nfbmr.features.backends import StoreBackend
from nfbmr.features.files import File
from nfbmr.locks import never

log = logging.getLogger(__name__)

FOLDER = "claims"
"""Below the store's address, of all claims."""
BEAT = 5.0
"""Seconds after which a number is written again."""
GONE = 60.0
"""Seconds after which whoever has not written its number is taken for gone."""
EVERY, SELDOM = 0.5, 5.0
"""Seconds between two looks at who is served: the first ones, and the most that they become."""

_CHOOSING = "choosing"


class _Number(NamedTuple):
    """A number that somebody has taken; the lower is served first, and of two that are equal the lower id."""

    number: int
    owner: str


class Claims:
    """Claims on what is computed, between machines.

    Args:
        objects: The store that they share.
        beat: Seconds after which a number is written again.
        gone: Seconds after which whoever has not done so is taken for gone.
    """

    def __init__(self, objects: StoreBackend, *, beat: float = BEAT, gone: float = GONE) -> None:
        self._objects = objects
        self._beat = beat
        self._gone = gone

    @contextmanager
    def held(self, what: str, give_up: Callable[[], bool] = never) -> Iterator[None]:
        """Hold the right to compute something; others wait.

        On one machine only one process at a time should ask for the same: file locks are cheaper.

        Args:
            what: Its name, without dots or slashes.
            give_up: Read while waiting.

        Raises:
            Interrupted: `give_up` said so.
            StoreError: The object store failed before the right was had.
        """
        claim = _Claim(self._objects, what, self._gone)
        try:
            claim.take()
        except StoreError:
            claim.let_go()  # what was written may have arrived
            raise
        beating = threading.Event()
        heart = threading.Thread(target=self._keep, args=(claim, beating), daemon=True, name="claim")
        heart.start()
        try:
            said, pause = False, EVERY
            while not claim.served():
                if give_up():
                    raise Interrupted(
                        "stopped while another machine computes the same",
                        where=what,
                        fix="run the same command again",
                    )
                if not said:
                    log.info("another machine computes %s; waiting for it", what)
                said = True
                time.sleep(pause)
                pause = min(1.2 * pause, SELDOM)
            yield
        finally:
            beating.set()
            heart.join()
            claim.let_go()

    def _keep(self, claim: _Claim, stopped: threading.Event) -> None:
        while not stopped.wait(self._beat):
            try:
                claim.write()
            except StoreError as error:
                log.debug("a claim could not be written again: %s", error)


class _Claim:
    """One claim, from taking a number to letting go of it."""

    def __init__(self, objects: StoreBackend, what: str, gone: float) -> None:
        self._objects = objects
        self._what = what
        self._gone = gone
        self._mine = _Number(0, uuid.uuid4().hex)

    def take(self) -> None:
        """Take a number above all that are there."""
        choosing = self._name(_CHOOSING, self._mine.owner)
        self._objects.write(choosing, b"1")
        try:
            highest = max((number.number for number in self._numbers(self._there())), default=0)
            self._mine = _Number(highest + 1, self._mine.owner)
            self.write()
        finally:
            self._objects.discard(choosing)

    def write(self) -> None:
        """Write the number, for the first time or again."""
        self._objects.write(self._name(f"{self._mine.number:06d}", self._mine.owner), b"1")

    def served(self) -> bool:
        """Whether nobody comes before."""
        # In two looks: whoever was choosing before the first one has its number in the second.
        if any(name.partition(".")[0] == _CHOOSING for name in self._there()):
            return False
        return min(self._numbers(self._there()), default=self._mine) >= self._mine

    def let_go(self) -> None:
        """Clear the number away; of a store that fails it is cleared away by others, later."""
        try:
            self._objects.discard(self._name(f"{self._mine.number:06d}", self._mine.owner))
        except StoreError as error:
            log.debug("a claim is left behind: %s", error)

    def _numbers(self, there: dict[str, File]) -> list[_Number]:
        parted = (name.split(".") for name in there)
        return [_Number(int(number), owner) for number, owner in parted if number != _CHOOSING]

    def _there(self) -> dict[str, File]:
        """The claims on the same thing, by ``<number>.<id>``; those of the gone are cleared away."""
        prefix = f"{self._what}."
        there = {
            name.removeprefix(prefix): file
            for name, file in self._objects.files(FOLDER).items()
            if name.startswith(prefix)
        }
        now = max(
            (file.written for name, file in there.items() if name.endswith(self._mine.owner)), default=0.0
        )
        for name, file in list(there.items()):
            if file.written < now - self._gone and not name.endswith(self._mine.owner):
                log.info("whoever claimed %s is gone", self._what)
                self._objects.discard(f"{FOLDER}/{prefix}{name}")
                del there[name]
        return there

    def _name(self, number: str, owner: str) -> str:
        return f"{FOLDER}/{self._what}.{number}.{owner}"
