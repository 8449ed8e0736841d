"""How long work takes beside others."""

from __future__ import annotations

import time

import pytest

from distill.train.pace import Clock


def test_work_that_waits_costs_the_processor_little_and_its_wait_is_in_the_pace() -> None:
    def waits() -> None:
        until = time.process_time() + 0.01
        while time.process_time() < until:
            pass
        time.sleep(0.03)

    clock = Clock(cpu=True)
    spent = clock.fastest(waits, 3)
    assert spent == pytest.approx(0.01, abs=0.006)
    found = clock.duration(100 * spent)
    assert found.processor == pytest.approx(100 * spent)
    assert found.usual > 2.5 * found.processor
    assert found.least <= found.processor <= found.usual <= found.most
