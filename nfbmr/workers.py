"""Several processes, one run: what they agree on, and how work is divided among them.

Every worker runs the same program. They differ in :attr:`ProcessGroup.rank` alone; rank 0 writes what is
written once. :class:`SingleProcess` is one process and costs nothing; :class:`DistributedGroup` is the
default process group of torch.distributed, however that was started (Ray Train, ``torchrun``, a test).

An error of ours in one worker is an error of the run: :meth:`ProcessGroup.propagate_errors` tells it to the
others, who raise it too where they next agree on something. Gradients are averaged without such a word, so
nothing but arithmetic may stand between two of them. Any other exception ends its process, which its peers
notice by the closed connection.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from nfbmr.errors import NfbmrError

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long a worker waits for another: one may hash images or wait for another run's flow meanwhile. One that
died is noticed at once, since its connections close."""

_WELL, _YES, _FAILED = 0, 1, 2


class ProcessGroup(Protocol):
    """The processes that a run is spread over, seen from one of them.

    All but :meth:`wrap_ddp` are collective: every worker calls them, in the same order.
    """

    @property
    def rank(self) -> int:
        """This worker's number, from 0."""
        ...

    @property
    def count(self) -> int:
        """Workers in all."""
        ...

    def barrier(self) -> None:
        """Wait until all are here."""
        ...

    def any_rank(self, flag: bool) -> bool:
        """Whether any worker says so."""
        ...

    def all_gather(self, value: T) -> list[T]:
        """Every worker's value, by rank."""
        ...

    def broadcast(self, make: Callable[[], T]) -> T:
        """What rank 0 makes; the others make nothing."""
        ...

    def wrap_ddp(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the workers; they start from rank 0's parameters."""
        ...

    def propagate_errors(self) -> AbstractContextManager[None]:
        """A block that all leave well, or all with an error of ours: the one that some worker met."""
        ...


class SingleProcess:
    """One process.

    Example:
        >>> alone = SingleProcess()
        >>> alone.broadcast(lambda: 3), alone.all_gather("a"), alone.any_rank(False)
        (3, ['a'], False)
    """

    rank = 0
    count = 1

    def barrier(self) -> None:
        """Go on."""

    def any_rank(self, flag: bool) -> bool:
        """What this process says."""
        return flag

    def all_gather(self, value: T) -> list[T]:
        """The one value."""
        return [value]

    def broadcast(self, make: Callable[[], T]) -> T:
        """Make it."""
        return make()

    def wrap_ddp(self, module: nn.Module) -> nn.Module:
        """The module as it is."""
        return module

    def propagate_errors(self) -> AbstractContextManager[None]:
        """Nothing to agree on."""
        return nullcontext()


SINGLE_PROCESS: ProcessGroup = SingleProcess()
"""The group of a run that has this process alone."""


class DistributedGroup:
    """The default process group of torch.distributed, which has to be initialised.

    Words between workers go over a gloo group of their own, so that they cannot be taken for gradients,
    and need no GPU.
    """

    def __init__(self) -> None:
        import torch.distributed as dist

        self._dist = dist
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self._words = cast("dist.ProcessGroup", dist.new_group(backend="gloo", timeout=PATIENCE))
        self._over = False

    def barrier(self) -> None:
        """Wait until all are here."""
        self._agree(_WELL)

    def any_rank(self, flag: bool) -> bool:
        """Whether any worker says so: one exchange of two numbers."""
        return self._agree(_YES if flag else _WELL)[0] == _YES

    def all_gather(self, value: T) -> list[T]:
        """Every worker's value, by rank; it has to be picklable."""
        pickled = pickle.dumps(value)
        _, size = self._agree(_WELL, len(pickled))
        return [pickle.loads(received) for received in self._all(pickled, size)]  # noqa: S301 -- our own workers' bytes

    def broadcast(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, pickled and sent to the others."""
        if self.rank:
            _, size = self._agree(_WELL)
            buffer = torch.empty(size, dtype=torch.uint8)
            self._dist.broadcast(buffer, src=0, group=self._words)
            value: T = pickle.loads(buffer.numpy().tobytes())  # noqa: S301 -- rank 0's bytes
            return value
        value = make()
        pickled = pickle.dumps(value)
        self._agree(_WELL, len(pickled))
        self._dist.broadcast(_as_bytes(pickled, len(pickled)), src=0, group=self._words)
        return value

    def wrap_ddp(self, module: nn.Module) -> nn.Module:
        """The module in DistributedDataParallel."""
        from torch.nn.parallel import DistributedDataParallel

        # Buffers are constants: no step changes them.
        return DistributedDataParallel(module, forward_sync_buffers=False)

    @contextmanager
    def propagate_errors(self) -> Iterator[None]:
        """Tell the others of an error of ours; raise theirs."""
        try:
            yield
            self.barrier()
        except NfbmrError as error:
            # Whoever was interrupted in the middle of an exchange cannot begin another.
            if not self._over and not isinstance(error.__cause__, KeyboardInterrupt):
                pickled = pickle.dumps(error)
                self._over = True
                self._all(pickled, self._exchanged(_FAILED, len(pickled))[1])
            raise

    def _agree(self, word: int, size: int = 0) -> tuple[int, int]:
        """The largest word and size of all; raises the error that some worker tells of."""
        word, size = self._exchanged(word, size)
        if word == _FAILED:
            self._over = True
            errors = [message for message in self._all(b"", size) if message]
            raise pickle.loads(errors[0])  # noqa: S301 -- our own workers' bytes
        return word, size

    def _exchanged(self, word: int, size: int) -> tuple[int, int]:
        numbers = torch.tensor([word, size])
        self._dist.all_reduce(numbers, op=self._dist.ReduceOp.MAX, group=self._words)
        word, size = numbers.tolist()
        return word, size

    def _all(self, pickled: bytes, size: int) -> list[bytes]:
        """Everybody's bytes, by rank; `size` is the most that anybody has."""
        sent = _as_bytes(len(pickled).to_bytes(8, "little") + pickled, 8 + size)
        received = [torch.empty_like(sent) for _ in range(self.count)]
        self._dist.all_gather(received, sent, group=self._words)
        whole = [buffer.numpy().tobytes() for buffer in received]
        return [buffer[8 : 8 + int.from_bytes(buffer[:8], "little")] for buffer in whole]


def shard_range(count: int, workers: ProcessGroup) -> range:
    """The things out of `count` that this worker takes: neighbours, so that all shares in a row are all.

    Example:
        >>> shard_range(5, SingleProcess())
        range(0, 5)
    """
    return range(count * workers.rank // workers.count, count * (workers.rank + 1) // workers.count)


def in_order(part: list[T], workers: ProcessGroup) -> list[T]:
    """All workers' parts, in the order of :func:`shard_range`."""
    return [item for some in workers.all_gather(part) for item in some]


def broadcast_weights(module: nn.Module, workers: ProcessGroup) -> None:
    """Give every worker the parameters and buffers of rank 0's module."""
    if workers.count == 1:
        return
    tensors: dict[str, Any] = workers.broadcast(
        lambda: {name: tensor.cpu() for name, tensor in module.state_dict().items()}
    )
    if workers.rank:
        module.load_state_dict(tensors)


def _as_bytes(value: bytes, size: int) -> Tensor:
    """As a tensor, filled up to `size`."""
    return torch.frombuffer(bytearray(value.ljust(size, b"\0")), dtype=torch.uint8)
