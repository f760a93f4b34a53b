from __future__ import annotations

import contextlib
import os
import signal
import threading

import pytest

from nfbmr.stopping import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_sets_the_flag_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once() -> None:
    with StopRequest():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ValueError), StopRequest():
        raise ValueError("inside")
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_it_can_be_asked_but_touches_no_signals() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[bool] = []

    def work() -> None:
        with StopRequest() as stop:
            seen.append(signal.getsignal(signal.SIGINT) is before)
            stop.ask()
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True, True]
