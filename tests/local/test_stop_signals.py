"""Signals as something to wait for."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from ecs_queue.local.stop_signals import StopSignals, stop_signals


def test_signals_are_returned_in_order_and_the_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in stop_signals()]
    with StopSignals() as signals:
        assert signals.wait(0.0) is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.wait(5.0) is signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.wait(None) is signal.SIGINT
        assert signals.wait(0.0) is None
    assert [signal.getsignal(number) for number in stop_signals()] == before


def test_a_signal_that_does_not_interrupt_the_main_thread_ends_the_wait() -> None:
    with StopSignals() as signals:
        other = threading.Timer(0.2, signal.raise_signal, [signal.SIGTERM])  # it comes in that thread
        other.start()
        assert signals.wait(10.0) is signal.SIGTERM
        other.join()


def test_another_signal_with_a_handler_is_none_of_them() -> None:
    caught: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: caught.append(number))
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGUSR1)
            assert (signals.wait(0.1), caught) == (None, [signal.SIGUSR1])
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGTERM)
            assert signals.wait(5.0) is signal.SIGTERM
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert signal.set_wakeup_fd(-1) == -1


def test_the_end_of_the_terminal_is_sigterm() -> None:
    before = signal.signal(signal.SIGHUP, lambda *_: None)  # if it is not caught, it must not end the tests
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.wait(1.0) is signal.SIGTERM
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.wait(0.0) is None
        assert signal.SIGHUP not in stop_signals()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_unread_signals_do_no_harm() -> None:
    with StopSignals() as signals:
        for _ in range(70_000):  # a pipe holds 65,536
            signal.raise_signal(signal.SIGTERM)
        assert signals.wait(0.0) is signal.SIGTERM


def test_the_handlers_are_restored_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), StopSignals():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before
