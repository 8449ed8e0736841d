"""Embeddings, and duplicates in meaning."""
