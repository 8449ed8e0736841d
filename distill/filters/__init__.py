"""One file a filter: vectorised verdicts with a reason and evidence; a chain runs them."""

from distill.filters.base import Filter, Verdicts
from distill.filters.building import FilterContext, build_chain
from distill.filters.chain import Chain, ChainVerdicts
from distill.filters.files import FilterReport, filter_file

__all__ = [
    "Chain",
    "ChainVerdicts",
    "Filter",
    "FilterContext",
    "FilterReport",
    "Verdicts",
    "build_chain",
    "filter_file",
]
