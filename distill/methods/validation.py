"""JSON Schemas compiled once, draft 2020-12 unless `$schema` says otherwise. References are resolved inside the schema
and to the published metaschemas only, never over a network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

from distill.errors import InputError

__all__ = ["Problem", "Validator", "compile_schema"]


class Problem(Protocol):
    """One way in which a value breaks a schema."""

    message: str
    json_path: str


class Validator(Protocol):
    """A schema, compiled."""

    def iter_errors(self, instance: Any) -> Iterator[Problem]: ...


def compile_schema(schema: Mapping[str, Any], name: str) -> Validator:
    """Compile `schema`.

    Args:
        name: the schema's file, for messages.

    Raises:
        InputError: it is not a JSON Schema, or a reference in it leads nowhere.
    """
    # Imported here: 0.1 s that most recipes never need.
    import jsonschema
    import jsonschema_specifications
    from jsonschema.validators import validator_for

    kind: Any = validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise InputError(f"not a JSON Schema: {error.json_path}: {error.message}", path=name) from None
    # A registry of our own: the library's default one fetches remote references.
    registry: Any = jsonschema_specifications.REGISTRY
    _check_references(schema, registry, name)
    return kind(schema, registry=registry)


def _check_references(schema: Mapping[str, Any], registry: Any, name: str) -> None:
    """Every `$ref` leads somewhere: found here, not at the first answer that was paid for."""
    import referencing
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resource: Any = referencing.Resource.from_contents(schema, default_specification=DRAFT202012)
    base: str = resource.id() or ""
    resolver: Any = registry.with_resource(base, resource).resolver(base)
    stack: list[Any] = [schema]
    while stack:
        here = stack.pop()
        if isinstance(here, list):
            stack.extend(cast("list[Any]", here))
        elif isinstance(here, dict):
            node = cast("dict[str, Any]", here)
            if "$id" in node and node is not schema:
                continue  # it has a base of its own
            # What stands in `const` and the like is data.
            stack.extend(child for key, child in node.items() if key not in ("const", "enum", "default", "examples"))
            reference = node.get("$ref")
            if isinstance(reference, str):
                try:
                    resolver.lookup(reference)
                except Unresolvable:
                    raise InputError(
                        f"the reference {reference!r} leads nowhere",
                        path=name,
                        hint="references are followed inside the schema; what it refers to has to stand under $defs",
                    ) from None
