"""Filters that judge a row by itself."""
