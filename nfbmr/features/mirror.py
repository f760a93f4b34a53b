"""A store on an object store: each machine works on a cache of it, and finished files are mirrored.

::

    s3://<bucket>/<prefix>/store.json                                       that this is a store
                           spaces/<key>/space.json, *.arrow                 as in a folder
                           stages/<key>/stage.safetensors, stage.json, stage.sha256
                           claims/                                          who computes what just now

Names are those of a store in a folder: copying everything from one to the other moves it.

Shards never change and carry their checksum in their name, so mirroring is adding what one side lacks, and a
damaged download is noticed. A fitted stage is there once its ``stage.sha256`` is, which is written last.

File locks hold on one machine alone; between machines a claim says who computes the rows of a space, or
fits a stage (:mod:`nfbmr.features.claims`). An object store that fails while a run is under way does not
stop it: two machines may then compute the same, which costs time and does no harm, and what could not be sent
stays in the cache, and is sent when the store is opened next.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from nfbmr.errors import StoreError
from nfbmr.features.backends import StoreBackend
from nfbmr.features.claims import Claims
from nfbmr.features.shards import ShardName, shard_paths, verify_shard
from nfbmr.features.stage_files import StageFiles
from nfbmr.locks import never
from nfbmr.paths import atomic
from nfbmr.text import count, size_of

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_AT_ONCE = 8
_PATIENCE = 30.0


def _forgiving(method: Callable[Concatenate[Mirror, _P], _T]) -> Callable[Concatenate[Mirror, _P], _T | None]:
    """A method whose failure is said, after which the work goes on with what is here."""

    @functools.wraps(method)
    def forgiven(self: Mirror, /, *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        if time.monotonic() < self._asked_again_at:
            return None  # not asked again at once: each attempt takes seconds
        try:
            return method(self, *args, **kwargs)
        except FileNotFoundError:  # removed in between
            return None
        except StoreError as error:
            self._asked_again_at = time.monotonic() + _PATIENCE
            log.warning(
                "%s; what is computed here stays in %s, and is sent when the store is opened next",
                error, self.root,
            )  # fmt: skip
            return None

    return forgiven


class Mirror:
    """Between a store's folder on this machine and its objects.

    Args:
        objects: What all machines share, in an object store.
        root: The store's folder here.

    Raises:
        StoreError: The object store cannot be used.
    """

    def __init__(self, objects: StoreBackend, root: Path) -> None:
        objects.mark()
        self.objects = objects
        self.root = root
        self._claims = Claims(objects)
        self._damaged: set[Path] = set()
        self._asked_again_at = 0.0

    @_forgiving
    def has(self, path: Path) -> bool:
        """Whether a small file is there."""
        return self.objects.read(self._name(path)) is not None

    @contextmanager
    def claim(self, folder: Path, give_up: Callable[[], bool] = never) -> Iterator[None]:
        """Hold the right to fill a space or to fit a stage among machines; go on without if the store fails.

        Args:
            folder: Of the space or the stage, here.
            give_up: Read while another machine has it.

        Raises:
            Interrupted: `give_up` said so.
        """
        with ExitStack() as held:
            self._enter_claim(held, self._name(folder).replace("/", "-"), give_up)
            yield

    @_forgiving
    def _enter_claim(self, held: ExitStack, what: str, give_up: Callable[[], bool]) -> None:
        held.enter_context(self._claims.held(what, give_up))

    @_forgiving
    def pull(self, folder: Path) -> bool:
        """Bring the shards of a space that are not here. Whether any came."""
        there = self._shards_there(folder)
        lacking = {p: name for p, name in there.items() if p not in self._damaged and not p.exists()}
        if not lacking:
            return False
        size = size_of(sum(name.size for name in lacking.values()))
        log.info("bringing %s (%s) from %s", count(len(lacking), "shard"), size, self.objects.root)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="mirror") as pool:
            return any(list(pool.map(self._fetch, lacking, (name.sha for name in lacking.values()))))

    @_forgiving
    def push(self, folder: Path, shards: Sequence[Path] | None = None) -> None:
        """Send shards of a space: those named, or all that are here and not there."""
        if shards is None:
            there = self._shards_there(folder)
            shards = [path for path in shard_paths(folder) if path not in there and verify_shard(path)]
        name = self._name(folder)
        if shards and self.objects.read(f"{name}/space.json") is None:
            self.objects.send(folder / "space.json", f"{name}/space.json")
        for path in shards:
            self.objects.send(path, f"{name}/{path.name}")

    @_forgiving
    def exchange_stage(self, folder: Path) -> None:
        """Bring a fitted stage that is not here; send one that is not there."""
        weights, about, _ = StageFiles.of(folder)
        sums = self.objects.stage_sums(self._name(folder))
        if all((folder / file).exists() for file in (weights, about)):
            if sums is None:
                self._send_stage(folder)
        elif sums is not None:
            came = [self._fetch(folder / file, sums.get(file, "?")) for file in (weights, about)]
            if not all(came):
                (folder / about).unlink(missing_ok=True)

    def push_stage(self, folder: Path) -> None:
        """Send a stage that has just been fitted."""
        self._asked_again_at = 0.0  # what took so long is worth another attempt
        self._send_stage(folder)

    @_forgiving
    def _send_stage(self, folder: Path) -> None:
        *files, sums = StageFiles.of(folder)
        sent = [f"{self.objects.send(folder / file, self._name(folder / file))}  {file}\n" for file in files]
        self.objects.write(self._name(folder / sums), "".join(sent).encode())

    def _shards_there(self, folder: Path) -> dict[Path, ShardName]:
        """The shards that are there whole, by where they belong here."""
        files = self.objects.files(self._name(folder))
        named = ((folder / name, ShardName.of(Path(name)), file.size) for name, file in files.items())
        return {path: shard for path, shard, size in named if shard is not None and shard.size == size}

    def _fetch(self, path: Path, sha: str) -> bool:
        """Bring a file, whole or not at all; one that another machine has removed meanwhile is not there.

        Args:
            path: Where it belongs here.
            sha: How the SHA-256 of its bytes begins.

        Returns:
            Whether it was there, with the bytes that were once written.

        Raises:
            OutputError: The disk is full or the folder cannot be written.
        """
        name = self._name(path)
        for _ in range(2):  # a connection may break off
            try:
                with atomic(path) as temporary:
                    if not self._copied(name, temporary).startswith(sha):
                        raise _DamagedError
                    return True
            except _RemovedError:
                return False
            except _DamagedError:
                continue
        self._damaged.add(path)
        log.warning(
            "%s/%s does not hold the bytes that were written; it is done anew", self.objects.root, name
        )
        return False

    def _copied(self, name: str, path: Path) -> str:
        try:
            return self.objects.fetch(name, path)
        except FileNotFoundError:
            raise _RemovedError from None  # which is no failure of the disk that is written to

    def _name(self, folder: Path) -> str:
        return folder.relative_to(self.root).as_posix()


class _DamagedError(Exception):
    """Other bytes came than were written."""


class _RemovedError(Exception):
    """It was there a moment ago."""
