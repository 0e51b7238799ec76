"""Ctrl-C, in a scene and in a clean-up."""

import os
import signal

import pytest

from bursar.app.demo.interrupts import SIGNALS, Interrupted, Interrupts


@pytest.fixture
def interrupts():
    """Handlers of our own, for the time of a test."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield Interrupts()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_scene_ends_at_once(interrupts):
    """With the signal's number."""
    with pytest.raises(Interrupted) as raised, interrupts.allowed():
        os.kill(os.getpid(), signal.SIGTERM)
    assert raised.value.number == signal.SIGTERM


def test_a_clean_up_is_not_interrupted_and_what_came_then_is_told_afterwards(interrupts):
    """The next scene does not begin."""
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Interrupted), interrupts.allowed():
        pytest.fail("the scene began")
    with pytest.raises(Interrupted):
        interrupts.check()


def test_the_second_signal_is_forgotten(interrupts):
    """Whoever presses Ctrl-C twice still gets a clean machine."""
    with pytest.raises(Interrupted), interrupts.allowed():
        os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
