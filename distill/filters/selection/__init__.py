"""Choosing rows from a whole set: diversity, mixing."""
