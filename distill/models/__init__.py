"""Weights by name: the catalogue, the shared cache, and the transformers folder made from a GGUF file."""

from distill.models.cache import Presence, cache_root, list_models, path
from distill.models.catalogue import Model, catalogue, entry
from distill.models.convert import folder, ready_folder
from distill.models.pull import Progress, pull

__all__ = [
    "Model",
    "Presence",
    "Progress",
    "cache_root",
    "catalogue",
    "entry",
    "folder",
    "list_models",
    "path",
    "pull",
    "ready_folder",
]
