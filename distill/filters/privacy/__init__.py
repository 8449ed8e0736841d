"""The parts of the `pii` filter."""
