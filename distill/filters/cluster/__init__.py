"""A chain over a Ray cluster, with the survivors of one machine."""
