"""The student is trained: rows of any layout, any chat template, the right tokens, an adapter."""

from distill.train.data import Conversation, TrainData, read_rows
from distill.train.dpo import train_preferences
from distill.train.folder import TrainResult
from distill.train.forecast import Plan, plan
from distill.train.pairs import Pair, PairData, read_pairs
from distill.train.sft import train
from distill.train.student import locate
from distill.train.watch import Progress

__all__ = [
    "Conversation",
    "Pair",
    "PairData",
    "Plan",
    "Progress",
    "TrainData",
    "TrainResult",
    "locate",
    "plan",
    "read_pairs",
    "read_rows",
    "train",
    "train_preferences",
]
