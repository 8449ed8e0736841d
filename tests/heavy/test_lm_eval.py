"""lm-evaluation-harness counts what we count. Skipped where no environment has it (`LM_EVAL_PYTHON`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.lm_eval import MODEL, compare

pytestmark = pytest.mark.heavy


def test_the_harness_counts_the_same(tmp_path: Path) -> None:
    from distill.errors import DistillError
    from distill.models import folder

    python = os.environ.get("LM_EVAL_PYTHON")
    if python is None:
        pytest.skip("LM_EVAL_PYTHON names no environment with lm-eval 0.4.13")
    try:
        folder(MODEL)
    except DistillError as error:
        pytest.skip(str(error))
    found = compare(tmp_path, python, items=16)
    assert found.equal == 1.0
    assert found.theirs == pytest.approx(found.ours)
