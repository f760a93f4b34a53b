"""Several workers, one training: a gloo group of two processes beside one process."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nfbmr.errors import ImageError, Interrupted, OutputError, Pruned
from nfbmr.features.table import TensorTable
from nfbmr.stopping import StopRequest
from nfbmr.training.batches import Batches
from nfbmr.training.epoch_selection import ValidationResult
from nfbmr.workers import SingleProcess, broadcast_weights, in_order, shard_range

KINDS = ("flow", "mapping")
TOLERANCE = 1e-6
"""Weights of a few steps of Adam at a rate of 1e-3, in fp32: sums in another order, nothing else."""


class Seat(SingleProcess):
    """One worker of several, as far as it is on its own."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count  # type: ignore[misc]


# --- without a second process


@given(st.integers(0, 40), st.integers(1, 9))
def test_shares_in_a_row_are_all(things, count):
    shares = [shard_range(things, Seat(rank, count)) for rank in range(count)]
    assert [thing for share in shares for thing in share] == list(range(things))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 5), st.integers(0, 3))
def test_shares_of_a_batch_are_the_batch_whoever_takes_part(images, batch, count, epoch):
    table = TensorTable(torch.arange(float(images)).view(-1, 1, 1, 1))
    rows_N1 = torch.arange(images)[:, None]
    whole = Batches((table,), rows_N1, batch, seed=5)
    seats = [Batches((table,), rows_N1, batch, seed=5, workers=Seat(rank, count)) for rank in range(count)]
    for step, (of_one, *of_all) in enumerate(zip(*(b.epoch(epoch) for b in (whole, *seats)), strict=True)):
        shares = [seat.share(step) for seat in seats]
        assert {total for _, total in shares} == {len(of_one[0])}
        own = [value for (here, _), (y,) in zip(shares, of_all, strict=True) for value in y[:here].flatten()]
        assert torch.equal(torch.stack(own), of_one[0].flatten())
        assert all(len(y) >= 1 for (y,) in of_all), "an empty share is one image that does not count"


# --- words between two processes


def words(workers):
    rank = workers.rank
    workers.barrier()
    module = nn.Linear(2, 2)
    nn.init.constant_(module.weight, float(rank + 1))
    broadcast_weights(module, workers)
    return (
        workers.all_gather({"rank": rank, "rows": torch.arange(3 * rank)}),
        workers.broadcast(lambda: f"made by {rank}"),
        [workers.any_rank(flag) for flag in (False, rank == 1, True)],
        in_order(list(shard_range(5, workers)), workers),
        module.weight.mean().item(),
    )


def test_workers_agree(peers):
    first, second = peers(words)
    assert first[0][1]["rows"].tolist() == [0, 1, 2]
    for of_first, of_second in zip(first[1:], second[1:], strict=True):
        assert of_first == of_second
    assert first[1:] == ("made by 0", [False, True, True], [0, 1, 2, 3, 4], 1.0)


def one_fails(workers, failing, where):
    error = ImageError("cannot be read", where="a.png", fix="mend it")
    with workers.propagate_errors():
        workers.barrier()
        if workers.rank == failing:
            raise error
        if where == "gather":
            workers.all_gather("x" * 5000)
        elif where == "from_first":
            workers.broadcast(lambda: "x" * 5000)
        elif where == "any":
            workers.any_rank(True)


@pytest.mark.parametrize("where", ["gather", "from_first", "any", "the end"])
@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_one_worker_is_the_same_error_in_all(peers, failing, where):
    answers = peers.answers(one_fails, failing, where)
    for answer in answers:
        assert type(answer) is ImageError
        assert (answer.what, answer.where, answer.fix) == ("cannot be read", "a.png", "mend it")
    assert peers(words)[0][1] == "made by 0", "the processes go on"


def both_fail(workers):
    with workers.propagate_errors():
        raise ImageError(f"by {workers.rank}") if workers.rank else OutputError("disk is full")


def test_each_keeps_its_own_error_where_all_fail(peers):
    assert [type(answer) for answer in peers.answers(both_fail)] == [OutputError, ImageError]


# --- training


class StopAt(StopRequest):
    """Asked in one worker alone, after so many steps."""

    def __init__(self, steps, here):
        super().__init__()
        self.left, self.here = steps, here

    @property
    def requested(self):
        self.left -= 1
        return self.here and self.left <= 0


def trained(workers, trial, kind, *, stop_after=None, prune_after=None, **settings):
    """Train a stage in every worker; what came of it, whether it was stopped or not."""
    each = trial(kind, **settings)
    each.batches = Batches(
        each.batches.tables, each.batches.rows_NV, each.config.batch, each.batches.seed, workers=workers
    )
    told = []

    def on_epoch(epoch, metrics):
        told.append(epoch)
        if workers.rank == 0 and epoch == prune_after:
            raise Pruned("worse than others")

    stop = None if stop_after is None else StopAt(stop_after, workers.rank == workers.count - 1)
    with workers.propagate_errors():
        result = each.run(
            workers=workers,
            stop=stop,
            on_epoch=on_epoch,
            validate=lambda: ValidationResult({"objective": workers.broadcast(lambda: 0.5)}),
        )
    return each.weights(), result, told


def assert_same(weights, expected):
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, expected[name], atol=TOLERANCE, rtol=0, msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [4, 11, 1])  # shares of 2 + 2 and 2 + 1; of 6 + 5; of 1 + 0
def test_two_workers_train_what_one_trains(peers, trial, kind, batch):
    weights, result, told = trained(SingleProcess(), trial, kind, folder="one", batch=batch)
    for theirs, their_result, their_told in peers(trained, trial, kind, folder="two", batch=batch):
        assert_same(theirs, weights)
        losses = [epoch["loss"] for epoch in their_result.history]
        assert losses == pytest.approx([epoch["loss"] for epoch in result.history], abs=1e-6)
        assert their_told == told


@pytest.mark.parametrize("kind", KINDS)
def test_workers_end_with_the_same_bits(peers, trial, kind):
    (first, *_), (second, *_) = peers(trained, trial, kind, folder="two")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("begun_with", [1, 2])
def test_a_checkpoint_of_n_workers_resumes_with_m(peers, trial, kind, begun_with):
    expected, whole, _ = trained(SingleProcess(), trial, kind, folder="whole")
    if begun_with == 2:
        stopped = peers.answers(trained, trial, kind, folder="run", stop_after=5)
        assert [type(answer) for answer in stopped] == [Interrupted, Interrupted]
        assert len({str(answer) for answer in stopped}) == 1, "all stop after the same step"
        weights, result, _ = trained(SingleProcess(), trial, kind, folder="run")
    else:
        with pytest.raises(Interrupted):
            trained(SingleProcess(), trial, kind, folder="run", stop_after=5)
        (weights, result, _), _ = peers(trained, trial, kind, folder="run")
    assert result.resumed_from == 1
    assert [e["loss"] for e in result.history] == pytest.approx([e["loss"] for e in whole.history], abs=1e-6)
    assert_same(weights, expected)


def test_pruning_in_rank_0_ends_all(peers, trial):
    answers = peers.answers(trained, trial, "flow", prune_after=2)
    assert [type(answer) for answer in answers] == [Pruned, Pruned]


def diverging(workers, trial):
    """One worker's features are not finite; all workers' losses are then."""
    each = trial("flow")
    if workers.rank == 1:
        y = each.batches.tables[0].gather(list(range(22))).clone()
        y[:] = float("inf")
        each.batches = Batches((TensorTable(y),), each.batches.rows_NV, 4, 0, workers=workers)
    else:
        each.batches = Batches(each.batches.tables, each.batches.rows_NV, 4, 0, workers=workers)
    with workers.propagate_errors():
        each.run(workers=workers)


def test_a_loss_that_is_not_finite_in_one_worker_is_told_by_all(peers, trial):
    answers = peers.answers(diverging, trial)
    assert {type(answer).__name__ for answer in answers} == {"DivergenceError"}
    assert len({str(answer) for answer in answers}) == 1


def dying(workers):
    if workers.rank == 1:
        raise ValueError("a bug")
    workers.barrier()


def test_a_dead_worker_is_noticed_by_the_others(peers):
    first, second = peers.answers(dying)
    assert isinstance(first, RuntimeError)
    assert isinstance(second, ValueError)
