"""The filters that judge a row by itself, each loaded only where a chain has it."""

from __future__ import annotations

from pathlib import Path

from distill.filters.base import Filter
from distill.recipe import (
    AgreementStep,
    CodeStep,
    CopiesStep,
    CustomStep,
    LanguageStep,
    LeakageStep,
    PiiStep,
    RegexStep,
    RepetitionStep,
    ScoreStep,
    ScriptStep,
    TagsStep,
)

__all__ = ["QUALITY_STEPS", "QualityStep", "build_quality"]

QualityStep = (
    AgreementStep
    | CodeStep
    | CopiesStep
    | CustomStep
    | LanguageStep
    | LeakageStep
    | PiiStep
    | RegexStep
    | RepetitionStep
    | ScoreStep
    | ScriptStep
    | TagsStep
)
QUALITY_STEPS = (
    AgreementStep,
    CodeStep,
    CopiesStep,
    CustomStep,
    LanguageStep,
    LeakageStep,
    PiiStep,
    RegexStep,
    RepetitionStep,
    ScoreStep,
    ScriptStep,
    TagsStep,
)


def build_quality(step: QualityStep, name: str, *, folder: Path) -> Filter:
    """The filter that `step` declares; relative paths start from `folder`."""
    if isinstance(step, PiiStep):
        from distill.filters.pii import PiiFilter

        return PiiFilter(step, name)
    if isinstance(step, RegexStep):
        from distill.filters.format_regex import RegexFilter

        return RegexFilter(step, name)
    if isinstance(step, TagsStep):
        from distill.filters.format_tags import TagsFilter

        return TagsFilter(step, name)
    if isinstance(step, CodeStep):
        from distill.filters.format_code import CodeFilter

        return CodeFilter(step, name)
    if isinstance(step, RepetitionStep):
        from distill.filters.repetition import RepetitionFilter

        return RepetitionFilter(step, name)
    if isinstance(step, LanguageStep):
        from distill.filters.language import LanguageFilter

        return LanguageFilter(step, name)
    if isinstance(step, ScriptStep):
        from distill.filters.language_script import ScriptFilter

        return ScriptFilter(step, name)
    if isinstance(step, LeakageStep):
        from distill.filters.leakage import LeakageFilter

        return LeakageFilter(step, name, folder=folder)
    if isinstance(step, CopiesStep):
        from distill.filters.copies import CopiesFilter

        return CopiesFilter(step, name)
    if isinstance(step, AgreementStep):
        from distill.filters.agreement import AgreementFilter

        return AgreementFilter(step, name)
    if isinstance(step, ScoreStep):
        from distill.filters.score import ScoreFilter

        return ScoreFilter(step, name)
    from distill.filters.custom import load_custom

    return load_custom(step, name, folder=folder)
