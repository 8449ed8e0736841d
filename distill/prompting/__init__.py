"""Prompt files, rendered on slots in a sandbox: the only room that knows Jinja."""

from distill.prompting.book import PromptBook
from distill.prompting.prompt import Prompt, load_prompt
from distill.prompting.variables import EXTRA, STANDARD

__all__ = ["EXTRA", "STANDARD", "Prompt", "PromptBook", "load_prompt"]
