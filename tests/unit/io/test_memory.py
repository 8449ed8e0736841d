from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distill.io.memory import available_memory, page_out, peak_memory, resident_memory


def test_the_peak_is_this_process_own_and_not_its_parents() -> None:
    held = np.ones(400 << 20, dtype=np.uint8)
    assert peak_memory() > held.nbytes
    code = "from distill.io.memory import peak_memory; print(peak_memory())"
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert 0 < child < 200 << 20


def test_some_memory_is_free_and_not_more_than_a_machine_can_have() -> None:
    assert 1 << 24 < available_memory() < 1 << 46


LARGE = """
import ctypes, sys
from distill.io.memory import map_large_blocks, resident_memory

c = ctypes.CDLL(None)
c.malloc.restype = ctypes.c_void_p
c.malloc.argtypes, c.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]

def take(size):
    place = c.malloc(size)
    ctypes.memset(place, 1, size)
    return place

if sys.argv[1] == "map":
    map_large_blocks()
c.free(take(31 << 20))  # by default blocks up to this size go to the heap from now on
before = resident_memory()
blocks = [(take(8 << 20), take(64 << 10)) for _ in range(30)]
for large, _ in blocks:
    c.free(large)
print((resident_memory() - before) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_blocks_between_small_ones_go_back_to_the_system() -> None:
    def held(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", LARGE, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert held("leave") > 100
    assert held("map") < 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a call of Linux")
def test_what_was_read_of_a_mapped_file_goes_out_of_memory_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.write(np.arange(16 << 20, dtype=np.uint32).tobytes())
        file.flush()
        os.fsync(file.fileno())  # what is not on disk cannot be let go
    mapped = np.memmap(path, dtype=np.uint32, mode="r")
    total = int(mapped.sum(dtype=np.uint64))
    held = resident_memory()
    page_out(mapped.ctypes.data + 5, mapped.nbytes - 5)
    assert _on_tmpfs(tmp_path) or held - resident_memory() > mapped.nbytes // 2
    assert int(mapped.sum(dtype=np.uint64)) == total


def _on_tmpfs(folder: Path) -> bool:
    """Files there are memory."""
    said = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=True)
    return said.stdout.strip() in ("tmpfs", "ramfs")
