from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_server.naming import REQUEST_BYTES, chunks, valid_name, value_text


@given(st.text(max_size=300))
def test_mlflow_takes_every_name(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(valid_name(name))
    assert 0 < len(valid_name(name)) <= 250


@given(st.text("ab/.@:ß", max_size=8), st.text("ab/.@:ß", max_size=8))
def test_two_names_stay_two(one: str, other: str) -> None:
    assert (valid_name(one) == valid_name(other)) == (one == other)


@given(st.text(max_size=100), st.integers(50, 80))
def test_a_value_is_whole_or_says_that_it_is_cut(value: str, limit: int) -> None:
    text = value_text(value, limit)
    assert len(text) <= limit
    assert text == value or f"{len(value)} characters in all" in text


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(0, 9)), max_size=30), st.integers(1, 7))
def test_chunks_keep_everything_in_order(items: list[tuple[str, int]], count: int) -> None:
    parts = list(chunks(items, count))
    assert [item for part in parts for item in part] == items
    assert all(0 < len(part) <= count for part in parts)


def test_a_request_stays_below_the_servers_limit() -> None:
    items = [(f"key{number}", "ß" * 6000) for number in range(100)]
    parts = list(chunks(items, 100))
    assert len(parts) > 1
    assert all(
        sum(len(repr(item).encode("ascii", "backslashreplace")) for item in p) < REQUEST_BYTES for p in parts
    )


@pytest.mark.parametrize(
    "name", ["flow/loss", "test/image_auroc", "train.flow.epochs", "system/cpu", "a b:c-d"]
)
def test_ordinary_names_are_left_alone(name: str) -> None:
    assert valid_name(name) == name
