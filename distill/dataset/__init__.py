"""The row and its fate; training formats, splits and the dataset card."""

from distill.dataset.card import CardFacts, TeacherFacts
from distill.dataset.export import DatasetReport, write_dataset
from distill.dataset.parquet import RowWriter
from distill.dataset.row import ROW_SCHEMA, Failure, Fate, Row, failures_to_table, rows_to_table

__all__ = [
    "ROW_SCHEMA",
    "CardFacts",
    "DatasetReport",
    "Failure",
    "Fate",
    "Row",
    "RowWriter",
    "TeacherFacts",
    "failures_to_table",
    "rows_to_table",
    "write_dataset",
]
