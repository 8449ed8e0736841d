"""The proof: a frozen holdout, systems that answer it, metrics with intervals, gates."""

from distill.evaluate.evaluation import System, evaluate
from distill.evaluate.failures import Failure, Rules
from distill.evaluate.generation import Generated, Prediction, Student
from distill.evaluate.holdout import Holdout, Item, find_leaks, read_holdout
from distill.evaluate.metrics import Metric, parse_metric
from distill.evaluate.scorecard import GateResult, Scorecard, SystemScore, parse_gate
from distill.evaluate.teacher import TeacherSystem

__all__ = [
    "Failure",
    "GateResult",
    "Generated",
    "Holdout",
    "Item",
    "Metric",
    "Prediction",
    "Rules",
    "Scorecard",
    "Student",
    "System",
    "SystemScore",
    "TeacherSystem",
    "evaluate",
    "find_leaks",
    "parse_gate",
    "parse_metric",
    "read_holdout",
]
