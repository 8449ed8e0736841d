"""`python -m benchmarks [NAME …] [--data DIR]`: run benchmarks and print their tables."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "throughput",
    "memory",
    "limits",
    "replay",
    "kill",
    "planning",
    "student",
    "train_memory",
    "filters-dedup",
    "filters-decontaminate",
    "filters-semantic",
)


def main() -> None:
    given = sys.argv[1:]
    if "--data" in given:  # read where data is wanted
        del given[given.index("--data") : given.index("--data") + 2]
    # Those two train: minutes to an hour.
    wanted = given or [name for name in NAMES if name not in ("student", "train_memory")]
    for name in wanted:
        if name not in NAMES:
            sys.exit(f"no such benchmark: {name}; there are: {', '.join(NAMES)}")
    for name in wanted:
        module = importlib.import_module(f"benchmarks.{name.replace('-', '.')}")
        print(f"## {name}\n\n{(module.__doc__ or '').strip()}\n", flush=True)
        module.main()
        print(flush=True)


if __name__ == "__main__":
    main()
