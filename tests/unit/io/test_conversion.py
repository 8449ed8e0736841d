"""pyarrow converts without importing pandas."""

from __future__ import annotations

import subprocess
import sys

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
