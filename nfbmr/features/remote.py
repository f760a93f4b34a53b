"""A store on an object store: each machine works on a cache of it, and finished files are mirrored.

::

    s3://<bucket>/<prefix>/store.json                                       that this is a store
                           spaces/<key>/space.json, *.arrow                 as in a folder
                           flows/<key>/flow.safetensors, flow.json, flow.sha256
                           claims/                                          who computes what just now

Names are those of a store in a folder: copying everything from one to the other moves it.

Shards never change and carry their checksum in their name, so mirroring is adding what one side lacks, and a
damaged download is noticed. A flow is there once its ``flow.sha256`` is, which is written last.

File locks hold on one machine alone; between machines a claim says who computes the rows of a space, or
trains a flow (:mod:`nfbmr.features.claims`). An object store that fails while a run is under way does not
stop it: two machines may then compute the same, which costs time and does no harm, and what could not be sent
stays in the cache, and is sent when the store is opened next.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from nfbmr.addresses import ObjectPath
from nfbmr.errors import StoreError
from nfbmr.features.claims import Claims
from nfbmr.features.object_files import file_system
from nfbmr.features.shards import ShardName, shard_paths, verify_shard
from nfbmr.features.trees import File
from nfbmr.locks import never
from nfbmr.paths import atomic
from nfbmr.text import count, size_of

log = logging.getLogger(__name__)

_FORMAT = 1
_FLOW_FILES = ("flow.safetensors", "flow.json")
FLOW_SUMS = "flow.sha256"
"""Checksums of a flow's files, as ``sha256sum -c`` reads them."""

_AT_ONCE = 8
_PATIENCE = 30.0
_BLOCK = 1 << 20

_ANSWERS = (
    (
        ("NO_SUCH_BUCKET",),
        "there is no such bucket",
        "create it, or name another one: s3://bucket/prefix",
    ),
    (
        ("ACCESS_DENIED", "ACCESS_KEY", "SIGNATURE", "TOKEN", "UNRECOGNIZED_CLIENT", "status 403"),
        "the object store refuses access",
        "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), and that they may list, read "
        "and write there",
    ),
    (
        ("NETWORK_CONNECTION", "TIMEOUT", "resolve host", "Timeout"),
        "the object store cannot be reached",
        "check the network and AWS_ENDPOINT_URL (unset, Amazon's own server is asked)",
    ),
)


class ObjectStore:
    """The objects below an address; errors say what to do.

    Credentials and the server come from the usual places: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
    ``AWS_PROFILE``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``.

    Raises:
        StoreError: The bucket is missing, access is refused, or the server cannot be reached.
    """

    def __init__(self, address: ObjectPath) -> None:
        self.address = address
        self._files = file_system()
        with self._explained():
            from pyarrow.fs import FileType

            if self._files.get_file_info(address.bucket).type == FileType.NotFound:
                raise OSError("NO_SUCH_BUCKET")

    def mark(self) -> None:
        """Write down that this is a store, which also shows that it can be written."""
        if self.read("store.json") is None:
            self.write("store.json", json.dumps({"format": _FORMAT}).encode())

    def sizes(self, folder: str) -> dict[str, int]:
        """Size of each object straight inside a folder, by name."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._key(folder), allow_not_found=True)
        with self._explained():
            return {info.base_name: info.size for info in self._files.get_file_info(selector) if info.is_file}

    def read(self, name: str) -> bytes | None:
        """A small object; None where there is none."""
        try:
            return b"".join(self._blocks(name))
        except _NotThereError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a small object."""
        with self._explained(), self._files.open_output_stream(self._key(name)) as stream:
            stream.write(content)

    def send(self, path: Path, name: str) -> None:
        """Write a file's content. What a failure leaves behind is shorter, and is sent again."""
        with (
            self._explained(),
            path.open("rb") as file,
            self._files.open_output_stream(self._key(name)) as stream,
        ):
            while block := file.read(_BLOCK):
                stream.write(block)

    def fetch(self, name: str, path: Path, sha: str) -> bool:
        """Write an object to a file, whole or not at all.

        Args:
            name: Of the object.
            path: The file.
            sha: How the SHA-256 of its bytes begins.

        Returns:
            Whether it was there, with the bytes that were once written.

        Raises:
            OutputError: The disk is full or the folder cannot be written.
        """
        for _ in range(2):  # a connection may break off
            digest = hashlib.sha256()
            try:
                with atomic(path) as temporary:
                    with temporary.open("wb") as file:
                        for block in self._blocks(name):
                            digest.update(block)
                            file.write(block)
                    if not digest.hexdigest().startswith(sha):
                        raise _DamagedError
                return True
            except _DamagedError:
                continue
            except _NotThereError:
                return False
        log.warning("%s/%s does not hold the bytes that were written; it is done anew", self.address, name)
        return False

    def files(self, folder: str) -> dict[str, File]:
        """See :class:`~nfbmr.features.trees.Tree`, as what follows."""
        from pyarrow.fs import FileSelector

        root = self._key(folder)
        with self._explained():
            infos = self._files.get_file_info(FileSelector(root, recursive=True, allow_not_found=True))
        return {
            info.path.removeprefix(f"{root}/"): File(info.size, info.mtime_ns / 1e9)
            for info in infos
            if info.is_file
        }

    def is_whole(self, name: str) -> bool:
        """Whether a shard's bytes are those that its name tells of."""
        named = ShardName.of(Path(name))
        return named is not None and self._sum(name).startswith(named.sha)

    def is_whole_flow(self, folder: str) -> bool:
        """Whether a flow's files have the bytes that were sent."""
        sums = _sums(self.read(f"{folder}/{FLOW_SUMS}") or b"")
        return all(sums.get(file) == self._sum(f"{folder}/{file}") for file in _FLOW_FILES)

    def is_held(self, lock: str) -> bool:
        """No lock reaches from one machine to another."""
        return False

    def remove(self, folder: str, lock: str, dry_run: bool) -> bool:
        """Remove a folder's objects."""
        if not dry_run:
            with self._explained():
                self._files.delete_dir(self._key(folder))
        return True

    def discard(self, name: str) -> None:
        """Remove an object; with any part of a flow its checksums go, by which it is known to be there."""
        folder, _, file = name.rpartition("/")
        for each in {file, FLOW_SUMS} if file in _FLOW_FILES else {file}:
            with suppress(_NotThereError), self._explained():
                self._files.delete_file(self._key(f"{folder}/{each}"))

    def _sum(self, name: str) -> str:
        """SHA-256 of an object's bytes; of nothing where there is none."""
        digest = hashlib.sha256()
        with suppress(_NotThereError):
            for block in self._blocks(name):
                digest.update(block)
        return digest.hexdigest()

    def _blocks(self, name: str) -> Iterator[bytes]:
        with self._explained(), self._files.open_input_stream(self._key(name)) as stream:
            while block := stream.read(_BLOCK):
                yield block

    def _key(self, name: str) -> str:
        return f"{self.address.key}/{name}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the library says, as an error for people."""
        try:
            yield
        except FileNotFoundError as error:
            raise _NotThereError from error
        except OSError as error:
            text = str(error)
            for signs, what, fix in _ANSWERS:
                if any(sign in text for sign in signs):
                    raise StoreError(what, where=self.address, fix=fix) from error
            raise StoreError(
                f"the object store failed ({text.splitlines()[0][:200]})", where=self.address, fix="try again"
            ) from error


class Mirror:
    """Between a store's folder on this machine and its objects.

    Args:
        objects: What all machines share.
        root: The store's folder here.

    Raises:
        StoreError: The object store cannot be used.
    """

    def __init__(self, objects: ObjectStore, root: Path) -> None:
        objects.mark()
        self.objects = objects
        self.root = root
        self._claims = Claims(objects)
        self._damaged: set[Path] = set()
        self._asked_again_at = 0.0

    def has(self, folder: Path) -> bool:
        """Whether a space is there."""
        with self._forgiven():
            self._answers()
            return self.objects.read(f"{self._name(folder)}/space.json") is not None
        return False

    @contextmanager
    def claim(self, folder: Path, give_up: Callable[[], bool] = never) -> Iterator[None]:
        """Hold the right to fill a space or to train a flow among machines; go on without if the store fails.

        Args:
            folder: Of the space or the flow, here.
            give_up: Read while another machine has it.

        Raises:
            Interrupted: `give_up` said so.
        """
        with ExitStack() as held:
            with self._forgiven():
                self._answers()
                held.enter_context(self._claims.held(self._name(folder).replace("/", "-"), give_up))
            yield

    def pull(self, folder: Path) -> bool:
        """Bring the shards of a space that are not here. Whether any came."""
        with self._forgiven():
            self._answers()
            there = self._shards_there(folder)
            lacking = {p: name for p, name in there.items() if p not in self._damaged and not p.exists()}
            if lacking:
                whole = sum(name.size for name in lacking.values())
                log.info(
                    "bringing %s (%s) from %s",
                    count(len(lacking), "shard"), size_of(whole), self.objects.address,
                )  # fmt: skip
                with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="mirror") as pool:
                    return any(list(pool.map(self._fetch_shard, lacking, lacking.values())))
        return False

    def push(self, folder: Path, shards: Sequence[Path] | None = None) -> None:
        """Send shards of a space: those named, or all that are here and not there."""
        with self._forgiven():
            self._answers()
            if shards is None:
                there = self._shards_there(folder)
                shards = [path for path in shard_paths(folder) if path not in there and verify_shard(path)]
            name = self._name(folder)
            if shards and self.objects.read(f"{name}/space.json") is None:
                self.objects.send(folder / "space.json", f"{name}/space.json")
            for path in shards:
                self.objects.send(path, f"{name}/{path.name}")

    def exchange_flow(self, folder: Path) -> None:
        """Bring a trained flow that is not here; send one that is not there."""
        name = self._name(folder)
        with self._forgiven():
            self._answers()
            sums = self.objects.read(f"{name}/{FLOW_SUMS}")
            if all((folder / file).exists() for file in _FLOW_FILES):
                if sums is None:
                    self._send_flow(folder)
            elif sums is not None:
                sum_of = _sums(sums)
                came = [
                    self.objects.fetch(f"{name}/{file}", folder / file, sum_of.get(file, "?"))
                    for file in _FLOW_FILES
                ]
                if not all(came):
                    (folder / _FLOW_FILES[-1]).unlink(missing_ok=True)

    def push_flow(self, folder: Path) -> None:
        """Send a flow that has just been trained."""
        with self._forgiven():
            self._send_flow(folder)

    def _send_flow(self, folder: Path) -> None:
        name, sums = self._name(folder), ""
        for file in _FLOW_FILES:
            self.objects.send(folder / file, f"{name}/{file}")
            with (folder / file).open("rb") as opened:
                sums += f"{hashlib.file_digest(opened, 'sha256').hexdigest()}  {file}\n"
        self.objects.write(f"{name}/{FLOW_SUMS}", sums.encode())

    def _shards_there(self, folder: Path) -> dict[Path, ShardName]:
        """The shards that are there whole, by where they belong here."""
        sizes = self.objects.sizes(self._name(folder))
        named = ((folder / name, ShardName.of(Path(name)), size) for name, size in sizes.items())
        return {path: shard for path, shard, size in named if shard is not None and shard.size == size}

    def _fetch_shard(self, path: Path, name: ShardName) -> bool:
        came = self.objects.fetch(f"{self._name(path.parent)}/{path.name}", path, name.sha)
        if not came:
            self._damaged.add(path)
        return came

    def _name(self, folder: Path) -> str:
        return folder.relative_to(self.root).as_posix()

    def _answers(self) -> None:
        """Do not ask again at once what has just not answered: each attempt takes seconds."""
        if time.monotonic() < self._asked_again_at:
            raise _SilentError

    @contextmanager
    def _forgiven(self) -> Iterator[None]:
        """A failure is said, and the work goes on with what is here."""
        try:
            yield
        except (_NotThereError, _SilentError):  # removed in between, or known to be out of reach
            return
        except StoreError as error:
            self._asked_again_at = time.monotonic() + _PATIENCE
            log.warning(
                "%s; what is computed here stays in %s, and is sent when the store is opened next",
                error, self.root,
            )  # fmt: skip


class _DamagedError(Exception):
    """Other bytes came than were written."""


class _SilentError(Exception):
    """The object store failed a moment ago."""


class _NotThereError(Exception):
    """No such object, or no such file."""


def _sums(content: bytes) -> dict[str, str]:
    """Checksums by file, from the lines of ``sha256sum``."""
    lines = (line.partition("  ") for line in content.decode(errors="replace").splitlines())
    return {file: sha for sha, _, file in lines}
