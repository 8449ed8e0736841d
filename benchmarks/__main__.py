"""`python -m benchmarks [NAME …] [--data DIR] [OPTION …]`: run benchmarks and print their tables."""

from __future__ import annotations

import importlib
import itertools
import sys

NAMES = (
    "throughput",
    "memory",
    "limits",
    "replay",
    "kill",
    "planning",
    "estimates",
    "student",
    "int8",
    "road",
    "train_memory",
    "train_trl",
    "lm_eval",
    "filters-dedup",
    "filters-decontaminate",
    "filters-semantic",
    "filters-scale",
    "overnight-peers",
    "overnight-limits",
    "overnight-faults",
    "overnight-soak",
)


def main() -> None:
    # Names first; what begins with a dash and follows is read by the benchmark that knows it.
    given = sys.argv[1:]
    if given[:1] in (["-h"], ["--help"]):
        print(__doc__, "Names: " + ", ".join(NAMES), sep="\n\n")
        return
    if "--data" in given:
        del given[given.index("--data") : given.index("--data") + 2]
    wanted = list(itertools.takewhile(lambda word: not word.startswith("-"), given))
    # Training takes minutes to an hour, a night beside the peers longer.
    wanted = wanted or [name for name in NAMES if not name.startswith(("student", "road", "train_", "overnight"))]
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
