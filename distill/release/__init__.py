"""The release: merged weights, files for other engines, a registry of versions, and an endpoint that serves them."""

from distill.release.make import add_release
from distill.release.merge import MergeResult, merge
from distill.release.record import Release
from distill.release.registry import Listed, Registry

__all__ = ["Listed", "MergeResult", "Registry", "Release", "add_release", "merge"]
