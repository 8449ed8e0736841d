"""Ground floor: the one atomic writer, the one JSONL reader, canonical JSON and its digest."""

from distill.io.atomic import atomic_path, write_bytes, write_text
from distill.io.jsonl import read_jsonl, write_jsonl
from distill.io.strict import canonical, check_text, digest, loads

__all__ = [
    "atomic_path",
    "canonical",
    "check_text",
    "digest",
    "loads",
    "read_jsonl",
    "write_bytes",
    "write_jsonl",
    "write_text",
]
