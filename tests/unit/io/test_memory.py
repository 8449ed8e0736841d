from __future__ import annotations

import subprocess
import sys

import numpy as np

from distill.io.memory import available_memory, peak_memory


def test_the_peak_is_this_process_own_and_not_its_parents() -> None:
    held = np.ones(400 << 20, dtype=np.uint8)
    assert peak_memory() > held.nbytes
    code = "from distill.io.memory import peak_memory; print(peak_memory())"
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert 0 < child < 200 << 20


def test_some_memory_is_free_and_not_more_than_a_machine_can_have() -> None:
    assert 1 << 24 < available_memory() < 1 << 46
