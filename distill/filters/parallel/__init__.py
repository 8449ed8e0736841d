"""A chain over many processes, with the survivors of one: who judges what, where, and what is kept of it."""
