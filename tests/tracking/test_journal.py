from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfbmr.errors import OutputError
from nfbmr.journal import FILE, Journal, abandoned, entries

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(anything, max_size=5))
def test_what_goes_in_comes_out_in_order(values: list[object]) -> None:
    with tempfile.TemporaryDirectory() as name:
        journal = Journal(Path(name))
        for value in values:
            journal.append("thing", value=value)
        journal.close()
        assert [entry.fields["value"] for entry in entries(Path(name))] == values


@given(st.integers(0, 400))
def test_a_journal_cut_anywhere_keeps_every_whole_line_and_can_be_gone_on_with(cut: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        journal = Journal(folder)
        for number in range(8):
            journal.append("thing", number=number)
        journal.close()
        whole = (folder / FILE).read_bytes()
        (folder / FILE).write_bytes(whole[:cut])
        complete = whole[:cut].count(b"\n")
        assert [e.fields["number"] for e in entries(folder)] == list(range(min(8, complete)))

        journal = Journal(folder)
        journal.append("thing", number=99)
        journal.close()
        after = [e.fields["number"] for e in entries(folder)]
        # The cut line counts where only its end was missing.
        assert after[-1] == 99
        assert after[:-1] in (list(range(complete)), list(range(complete + 1)))


def test_a_reader_goes_on_where_it_stopped(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("thing", number=0)
    (first,) = entries(tmp_path)
    journal.append("thing", number=1)
    journal.close()
    assert [entry.fields["number"] for entry in entries(tmp_path, first.end)] == [1]


def test_numbers_that_json_cannot_say_come_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("metrics", values={"a": math.nan, "b": math.inf, "c": -math.inf})
    journal.close()
    (entry,) = entries(tmp_path)
    a, b, c = (float(entry.fields["values"][name]) for name in "abc")
    assert math.isnan(a)
    assert (b, c) == (math.inf, -math.inf)


def test_file_names_that_are_not_text_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n.png")
    journal = Journal(tmp_path)
    journal.append("artifact", path=name)
    journal.close()
    (entry,) = entries(tmp_path)
    assert os.fsencode(entry.fields["path"]) == b"caf\xe9\n.png"


def test_threads_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    journal = Journal(tmp_path)

    def write(thread: int) -> None:
        for number in range(100):
            journal.append("thing", name=f"{thread}-{number}", filling="x" * 500)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    assert len({entry.fields["name"] for entry in entries(tmp_path)}) == 400


def test_a_journal_is_abandoned_when_its_last_process_is_gone(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from nfbmr.journal import Journal\n"
    code += (
        "journal = Journal(Path(sys.argv[1])); journal.append('thing'); print('open', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        assert not abandoned(tmp_path)
        process.kill()
        process.wait()
        assert abandoned(tmp_path)


def test_a_full_disk_is_said_in_the_users_terms(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    (tmp_path / FILE).symlink_to("/dev/full")
    journal = Journal(tmp_path)
    with pytest.raises(OutputError, match="free some space"):
        journal.append("thing")
    journal.close()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        Journal(tmp_path / "file" / "tracking")
