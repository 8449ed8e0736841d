"""pyarrow converts without importing pandas, until somebody wants it. In processes of their own: it asks once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.workspaces import probe

pytest.importorskip("pandas")

PROGRAM = """
import sys
from distill.io.conversion import without_pandas
without_pandas()
import numpy as np
import pyarrow as pa
numbers = pa.array(np.arange(3))
assert np.asarray(numbers).tolist() == numbers.to_numpy().tolist() == [0, 1, 2]
assert np.asarray(pa.chunked_array([pa.array(["a", None])])).tolist() == ["a", None]
assert pa.array([None, 1.5], from_pandas=True).null_count == 1
assert "pandas" not in sys.modules
without_pandas()
import pandas
assert numbers.to_pandas().sum() == 3
assert pa.Table.from_pandas(pandas.DataFrame({"a": [1, 2]})).num_rows == 2
without_pandas()
assert sys.modules["pandas"] is pandas
"""


def test_conversions_work_and_import_nothing() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=120)


def said(code: str, *arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_run_with_filters_imports_no_pandas(tmp_path: Path) -> None:
    filters = [{"kind": "exact"}, {"kind": "length", "min_chars": 5}, {"kind": "repetition"}]
    teacher = {"provider": "simulated", "base_url": None, "api_key": None}
    recipe = probe(tmp_path, "", target=12, teacher=teacher, filters=filters)
    code = """
import sys
from pathlib import Path
from distill.cli.generate import generate_run

summary = generate_run(Path(sys.argv[1]), run=Path(sys.argv[2]), new=False, quiet=True)
print(summary.counts["kept"], "pandas" in sys.modules)
"""
    assert said(code, str(recipe), str(tmp_path / "run")) == ["12", "False"]


def test_data_frames_are_made_and_read_as_ever() -> None:
    code = """
import pyarrow as pa
from distill.io.conversion import with_pandas, without_pandas

without_pandas()
frame = pa.table({"a": [1.0, None]}).to_pandas()
print(frame.shape, pa.array(frame["a"]).null_count)
"""
    assert said(code) == ["(2,", "1)", "1"]


def test_code_that_brings_pandas_is_prepared_for() -> None:
    code = """
import pyarrow as pa
from distill.io.conversion import with_pandas, without_pandas

without_pandas()
import pandas as pd
values = pd.Series([1.0, float("nan")])
before = pa.array(values).null_count
with_pandas()
print(before, pa.array(values).null_count)
"""
    assert said(code) == ["0", "1"]
