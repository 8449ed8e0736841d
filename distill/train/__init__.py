"""The student is trained: rows of any layout, any chat template, the right tokens, an adapter."""

from distill.train.data import Conversation, TrainData, read_rows
from distill.train.sft import TrainResult, train
from distill.train.student import locate
from distill.train.trainer import Progress

__all__ = ["Conversation", "Progress", "TrainData", "TrainResult", "locate", "read_rows", "train"]
