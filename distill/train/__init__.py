"""The student is trained: rows of any layout, any chat template, the right tokens, an adapter."""

from distill.train.data import Conversation, TrainData, read_rows
from distill.train.distill import train_distillation
from distill.train.folder import TrainResult
from distill.train.forecast import Plan, plan
from distill.train.marked import Marked, MarkedData, read_marked
from distill.train.pairs import Pair, PairData, read_pairs
from distill.train.preferences import train_preferences
from distill.train.sft import train
from distill.train.stored import read_stored
from distill.train.student import locate
from distill.train.watch import Progress

__all__ = [
    "Conversation",
    "Marked",
    "MarkedData",
    "Pair",
    "PairData",
    "Plan",
    "Progress",
    "TrainData",
    "TrainResult",
    "locate",
    "plan",
    "read_marked",
    "read_pairs",
    "read_rows",
    "read_stored",
    "train",
    "train_distillation",
    "train_preferences",
]
