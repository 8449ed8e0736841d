"""The model of the allocator holds what the allocator holds."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from distill.train.heap import Heap

REAL = """
import ctypes, json, sys

class Info(ctypes.Structure):
    _fields_ = [(f"f{i}", ctypes.c_size_t) for i in range(10)]

c = ctypes.CDLL(None)
c.mallinfo2.restype = Info
c.posix_memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]
c.free.argtypes = [ctypes.c_void_p]

def held():
    found = c.mallinfo2()
    return found.f0 + found.f4  # the heap, and what is mapped apart

first, most, places = held(), 0, {}
for key, size in json.load(sys.stdin):
    if size is None:
        c.free(places.pop(key))
    else:
        place = ctypes.c_void_p()
        c.posix_memalign(ctypes.byref(place), 64, size)
        places[key] = place
    most = max(most, held() - first)
print(most)
"""


def draws(seed: int, largest: float) -> list[tuple[int, int | None]]:
    """Tensors of 4 kB to 2 to the power of `largest`, of which half are freed again in any order."""
    import random

    draw = random.Random(seed)
    events: list[tuple[int, int | None]] = []
    alive: list[int] = []
    for key in range(3000):
        if alive and draw.random() < 0.5:
            events.append((alive.pop(draw.randrange(len(alive))), None))
        else:
            events.append((key, int(2 ** draw.uniform(12, largest))))
            alive.append(key)
    return events


def played(events: list[tuple[int, int | None]]) -> Heap:
    heap = Heap()
    for key, size in events:
        if size is None:
            heap.give(key)
        else:
            heap.take(key, size)
    return heap


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the model is of glibc's allocator")
@pytest.mark.parametrize("largest", [23.0, 25.0, 27.0])
@pytest.mark.parametrize("seed", range(4))
def test_it_holds_what_the_c_library_holds(seed: int, largest: float) -> None:
    import json

    events = draws(seed, largest)
    done = subprocess.run(
        [sys.executable, "-c", REAL], input=json.dumps(events), capture_output=True, text=True, check=True
    )
    assert played(events).peak == pytest.approx(int(done.stdout), rel=0.15)


def test_holes_that_fit_are_taken_again() -> None:
    heap = Heap()
    for turn in range(10):
        for key in range(8):
            heap.take(8 * turn + key, 1 << 20)
        for key in range(8):
            heap.give(8 * turn + key)
        if turn == 1:
            once = heap.peak
    assert heap.peak == once


def test_what_stays_between_makes_holes_that_larger_ones_do_not_fit_into() -> None:
    heap = Heap()
    for key in range(16):
        heap.take(key, 100_000)
        heap.take(100 + key, 5_000)
    for key in range(16):
        heap.give(key)
    before = heap.held
    heap.take(200, 110_000)
    assert heap.held > before


def test_small_things_that_stay_keep_a_chunk_from_being_taken_again_by_one_of_its_size() -> None:
    for dust in (False, True):
        heap = Heap()
        heap.take(-1, 1 << 20)
        heap.give(-1)  # from here on such a size is no large one
        for key in range(50):
            heap.take(key, 900_000, dust=dust)
            if key:
                heap.give(key - 1)
        assert (heap.peak > 4 << 20) is dust
        heap.settle()
        before = heap.held
        heap.take(99, 20 << 20)
        assert heap.held - before < 20 << 20  # all of it is one hole again


def test_all_that_was_large_is_given_back() -> None:
    heap = Heap()
    heap.take(0, 1 << 30)
    assert heap.held >= 1 << 30
    heap.give(0)
    assert heap.held == 0
