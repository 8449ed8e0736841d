"""Exact and near-duplicates: shingles, signatures, the index, and the filters on top."""
