"""One file a distillation method: a coroutine from a slot to rows, which only calls `ask`."""

from distill.methods.base import Ask, Method, Prompt, Prompts
from distill.methods.build import METHODS, build_method
from distill.methods.structured import Parsed, Structure, Unstructured, parse

__all__ = [
    "METHODS",
    "Ask",
    "Method",
    "Parsed",
    "Prompt",
    "Prompts",
    "Structure",
    "Unstructured",
    "build_method",
    "parse",
]
