"""What a user declares: pydantic models that accept nothing they do not know."""

from distill.recipe.evaluate import EvaluateConfig
from distill.recipe.filters import (
    DecontaminateStep,
    EvalSet,
    ExactStep,
    Filters,
    FilterStep,
    LengthStep,
    MinHashStep,
    RefusalStep,
    SchemaStep,
    TruncationStep,
)
from distill.recipe.loading import load_chain, load_recipe, parse, parse_file
from distill.recipe.method import Check, MethodConfig, PreferenceConfig, ReasoningConfig, ResponseConfig
from distill.recipe.output import Budget, DatasetConfig
from distill.recipe.plan import PlanConfig
from distill.recipe.problems import suggest
from distill.recipe.recipe import Recipe
from distill.recipe.teachers import Limits, Price, Sampling, Simulation, TeacherConfig, literal_secret, resolve_secret
from distill.recipe.train import LoraConfig, TrainConfig

__all__ = [
    "Budget",
    "Check",
    "DatasetConfig",
    "DecontaminateStep",
    "EvalSet",
    "EvaluateConfig",
    "ExactStep",
    "FilterStep",
    "Filters",
    "LengthStep",
    "Limits",
    "LoraConfig",
    "MethodConfig",
    "MinHashStep",
    "PlanConfig",
    "PreferenceConfig",
    "Price",
    "ReasoningConfig",
    "Recipe",
    "RefusalStep",
    "ResponseConfig",
    "Sampling",
    "SchemaStep",
    "Simulation",
    "TeacherConfig",
    "TrainConfig",
    "TruncationStep",
    "literal_secret",
    "load_chain",
    "load_recipe",
    "parse",
    "parse_file",
    "resolve_secret",
    "suggest",
]
