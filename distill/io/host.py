"""What this machine has: cores, a GPU, what its processor is good at, and a name for it."""

from __future__ import annotations

import math
import os
import platform
import re
from pathlib import Path

__all__ = ["cores", "fast_bfloat16", "fast_int8", "has_gpu", "processor"]


def cores() -> int:
    """Cores this process may use: its affinity, and the container's share."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        if quota != "max":
            count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass
    return max(1, count)


def has_gpu() -> bool:
    """Whether an NVIDIA GPU is there, without loading torch to ask."""
    return Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")


def fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices (AVX512-BF16 or AMX): several times faster than float32."""
    return "bf16" in processor()


def fast_int8() -> bool:
    """Whether the processor multiplies matrices of bytes about twice as fast as bfloat16 ones (AVX512-VNNI)."""
    return fast_bfloat16() and "vnni" in processor()


def processor() -> str:
    """Model name and the instruction sets that decide speed, for example `AMD EPYC avx512_bf16`."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return f"{platform.machine()} {platform.processor()}".strip()
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    have = set(flags.group(1).split()) if flags else set[str]()
    sets = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2") if flag in have]
    return " ".join([name.group(1).strip() if name else platform.machine(), *sets])
