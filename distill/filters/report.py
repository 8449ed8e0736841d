"""What became of the rows of a file that was filtered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["SHOWN", "FilterReport"]

SHOWN = 20
"""Invalid rows that a report lists."""


@dataclass(slots=True)
class FilterReport:
    """What became of the rows. `read == kept + rejected_total + invalid`, always."""

    source: Path
    kept_path: Path
    rejected_path: Path
    read: int = 0
    kept: int = 0
    rejected: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    """By filter and reason."""
    invalid: int = 0
    problems: list[str] = field(default_factory=list[str])
    """The first invalid rows: file, line, why."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    steps: dict[str, float] = field(default_factory=dict[str, float])
    """CPU seconds by filter."""
    peak_mb: float = 0.0
    """Most memory the process has held."""
    notes: list[str] = field(default_factory=list[str])
    calibrated: dict[str, Any] = field(default_factory=dict[str, Any])
    """Thresholds that were set by the rows or by clean ones, by filter."""
    decontamination: dict[str, Any] = field(default_factory=dict[str, Any])
    """What each decontaminating filter found, by eval set; written beside the rows."""
    masked: dict[str, int] = field(default_factory=dict[str, int])
    """Values that filters replaced in kept and rejected rows, by kind."""
    self_test: dict[str, Any] = field(default_factory=dict[str, Any])
    """What decontaminating filters find of planted copies, by filter; empty unless asked for."""
    diversity: dict[str, Any] = field(default_factory=dict[str, Any])
    """Measures of the rows before and after a choice among them, and of a random choice."""
    more_files: dict[str, Path] = field(default_factory=dict[str, Path])
    remembered: dict[str, int] = field(default_factory=dict[str, int])
    """Bytes that filters hold of the rows they have kept, by filter: what grows with the rows."""
    workers: int = 1
    """Processes that read and judged."""
    worker_peak_mb: float = 0.0
    """Most memory that one of them has held."""
    rows_expected: int | None = None
    """Rows that are to be judged, where the file tells before it is read whole."""

    @property
    def rejected_total(self) -> int:
        return sum(sum(reasons.values()) for reasons in self.rejected.values())

    def enter(self, filters: Sequence[str], reasons: Sequence[str]) -> None:
        """Rows that were judged: the filter that dropped each, and why; empty text for a kept row."""
        self.read += len(filters)
        for (name, reason), count in Counter(zip(filters, reasons, strict=True)).items():
            if name:
                of = self.rejected.setdefault(name, {})
                of[reason] = of.get(reason, 0) + count
            else:
                self.kept += count

    def as_json(self) -> dict[str, Any]:
        return {
            "in": self.read,
            "kept": self.kept,
            "rejected": self.rejected,
            "rejected_total": self.rejected_total,
            "invalid": self.invalid,
            "problems": self.problems,
            "notes": self.notes,
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "steps_cpu_seconds": {name: round(seconds, 3) for name, seconds in self.steps.items()},
            "peak_mb": round(self.peak_mb, 1),
            "remembered_mb": {name: round(size / (1 << 20), 1) for name, size in self.remembered.items()},
            **({"workers": self.workers, "worker_peak_mb": round(self.worker_peak_mb, 1)} if self.workers > 1 else {}),
            "calibrated": self.calibrated,
            **({"self_test": self.self_test} if self.self_test else {}),
            "masked": self.masked,
            **({"diversity": self.diversity} if self.diversity else {}),
            "files": {
                "kept": str(self.kept_path),
                "rejected": str(self.rejected_path),
                **{name: str(path) for name, path in self.more_files.items()},
            },
        }
