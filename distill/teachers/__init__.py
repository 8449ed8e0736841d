"""Who is asked. One file a provider; each speaks its wire and knows nothing of limits, retries or files."""

from distill.teachers.base import (
    Answer,
    Finish,
    Message,
    Reading,
    Reply,
    Request,
    SamplingParams,
    Teacher,
    Usage,
)
from distill.teachers.batch import Batch, BatchTeacher, Result
from distill.teachers.factory import make_batches, make_teacher
from distill.teachers.logprobs import TokenLogprob
from distill.teachers.ratelimit import Remaining, limits_from

__all__ = [
    "Answer",
    "Batch",
    "BatchTeacher",
    "Finish",
    "Message",
    "Reading",
    "Remaining",
    "Reply",
    "Request",
    "Result",
    "SamplingParams",
    "Teacher",
    "TokenLogprob",
    "Usage",
    "limits_from",
    "make_batches",
    "make_teacher",
]
