"""The run: rounds, accounting, progress, the run directory."""

from distill.engine.events import Progress, Summary
from distill.engine.generate import generate, generate_sync, open_run
from distill.engine.prepare import Prepared, prepare
from distill.engine.run import Run
from distill.engine.rundir import RunDir, find_run, list_runs
from distill.engine.scrape import exposed

__all__ = [
    "Prepared",
    "Progress",
    "Run",
    "RunDir",
    "Summary",
    "exposed",
    "find_run",
    "generate",
    "generate_sync",
    "list_runs",
    "open_run",
    "prepare",
]
