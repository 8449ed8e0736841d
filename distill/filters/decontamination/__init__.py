"""The parts of the `decontaminate` filter."""
