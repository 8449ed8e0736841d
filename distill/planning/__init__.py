"""Taxonomy, dimensions and seeds become an endless, deterministic sequence of slots."""

from distill.planning.planner import Planner
from distill.planning.seeds import load_seeds
from distill.planning.shard import Shard
from distill.planning.slot import Seed, Slot, Topic
from distill.planning.taxonomy import RESERVED, Taxonomy, compile_taxonomy, load_taxonomy

__all__ = [
    "RESERVED",
    "Planner",
    "Seed",
    "Shard",
    "Slot",
    "Taxonomy",
    "Topic",
    "compile_taxonomy",
    "load_seeds",
    "load_taxonomy",
]
