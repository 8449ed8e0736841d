"""`python -m benchmarks [NAME …]`: run benchmarks and print their tables."""

from __future__ import annotations

import importlib
import sys

NAMES = ("throughput", "memory", "limits", "replay", "kill", "planning", "student")


def main() -> None:
    wanted = sys.argv[1:] or [name for name in NAMES if name != "student"]  # that one takes an hour
    for name in wanted:
        if name not in NAMES:
            sys.exit(f"no such benchmark: {name}; there are: {', '.join(NAMES)}")
    for name in wanted:
        module = importlib.import_module(f"benchmarks.{name}")
        print(f"## {name}\n\n{(module.__doc__ or '').strip()}\n", flush=True)
        module.main()
        print(flush=True)


if __name__ == "__main__":
    main()
