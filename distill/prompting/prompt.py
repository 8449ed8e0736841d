"""A prompt file: Jinja text, with an optional head of YAML between two lines of `---`.

---
description: writes one customer message
system: You write messages as customers of a bank would.
variables: [leaf, tone, seeds]
---
{# a comment, like this one, leaves nothing #}
Write one message about {{ leaf | join(" > ") }}, tone {{ tone }}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

from jinja2 import Template, TemplateError, UndefinedError
from pydantic import Field

from distill.errors import InputError, UnreadableText
from distill.io import check_text, digest, loads
from distill.io.yamlfile import parse_yaml
from distill.planning import Slot
from distill.prompting.allowed import MAX_TEXT
from distill.prompting.sandbox import Missing, Refused, compile_template, fields_of
from distill.prompting.variables import EXTRA, STANDARD, variables_of
from distill.recipe import parse, suggest
from distill.recipe.base import Section

__all__ = ["Prompt", "PromptHead", "load_prompt"]

_FAULTS = (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""What a template can raise while it renders."""


class PromptHead(Section):
    """The head of a prompt file."""

    description: str = ""
    """One line for people."""
    role: Literal["user", "system", "assistant"] = "user"
    """Whose turn the rendered text is."""
    system: str | None = None
    """The teacher's system turn, with the same variables as the text."""
    variables: tuple[str, ...] | None = None
    """Variables the prompt takes besides the standard ones: dimensions, and those of the method. When given, the use
    of any other is found when the file is read."""
    schema_: str | dict[str, Any] | None = Field(default=None, alias="schema")
    """JSON Schema that the answer must satisfy: a file relative to the prompt, or the schema itself."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One compiled template of a prompt file. Its lines are the file's."""

    template: Template
    used: Mapping[str, int]
    loops: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, ready to be rendered."""

    name: str
    path: Path
    description: str
    role: Literal["user", "system", "assistant"]
    digest: str
    """Changes when the text, the system turn, the role or the schema does."""
    schema: Mapping[str, Any] | None = field(hash=False)
    _body: _Part = field(repr=False, hash=False)
    _system: _Part | None = field(repr=False, hash=False)

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables the text and the system turn need, in the order of their first use."""
        system = tuple(self._system.used) if self._system else ()
        return tuple(dict.fromkeys((*system, *self._body.used)))

    def render(self, slot: Slot, **extra: Any) -> str:
        """The text for a slot, without white space around it. Values are shown as they are, never as templates.

        Raises:
            InputError: names file, line, variable and the nearest known name.
        """
        return self._render(self._body, slot, extra)

    def render_system(self, slot: Slot, **extra: Any) -> str | None:
        """The system turn for a slot, if there is one."""
        return None if self._system is None else self._render(self._system, slot, extra)

    def check(self, slot: Slot, **extra: Any) -> str:
        """Render on a sample slot, with stand-ins for what methods add; variables of branches that this slot does
        not take are looked at too. Returns the text.

        Raises:
            InputError: as `render`.
        """
        given = {**EXTRA, **extra}
        known = {**variables_of(slot), **given}
        for part in filter(None, (self._system, self._body)):
            for name, line in part.used.items():
                if name not in known:
                    raise _unknown(name, known, self.path, line)
        self.render_system(slot, **given)
        return self.render(slot, **given)

    def _render(self, part: _Part, slot: Slot, extra: dict[str, Any]) -> str:
        values = variables_of(slot)
        if extra:
            values = {**values, **extra}
        if part.loops:
            values = {**values, "_spent": [0]}
        template = part.template
        pieces: list[str] = []
        size = 0
        try:
            for piece in template.root_render_func(template.new_context(values, shared=True)):
                size += len(piece)
                if size > MAX_TEXT:
                    raise Refused(f"makes a text of more than {MAX_TEXT:,} characters", 0)
                pieces.append(piece)
            text = "".join(pieces).strip()
            check_text(text)
        except (*_FAULTS, UnreadableText) as error:
            raise _fault(error, template, values, self.path, slot) from None
        if not text:
            raise InputError("renders to nothing", path=self.path, hint=_where(slot))
        return text


def load_prompt(path: Path, name: str | None = None) -> Prompt:
    """Read, check and compile a prompt file.

    Raises:
        InputError: names file and line.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 (byte {error.start})", path=path) from None
    head, system_line, body = _split(text, path)
    schema = _schema(head.schema_, path)
    parts = [_compile(body, path)]
    if head.system is not None:
        parts.append(_compile("\n" * (system_line - 1) + head.system, path))
    if head.variables is not None:
        known = dict.fromkeys((*STANDARD, *head.variables))
        for part in parts:
            for variable, line in part.used.items():
                if variable not in known:
                    raise _unknown(variable, known, path, line, "is used and not declared in `variables`")
    return Prompt(
        name=name or path.stem,
        path=path,
        description=head.description,
        role=head.role,
        digest=digest([body.strip(), head.system, head.role, schema]),
        schema=schema,
        _body=parts[0],
        _system=parts[1] if len(parts) > 1 else None,
    )


def _split(text: str, path: Path) -> tuple[PromptHead, int, str]:
    """Head, line of its system turn, and body; the body is pushed down to the lines it has in the file."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return PromptHead(), 1, text
    end = next((number for number, line in enumerate(lines[1:], start=1) if line.rstrip() == "---"), None)
    if end is None:
        raise InputError("the head begins with `---` and does not end", path=path, line=1)
    value, known = parse_yaml("\n".join(lines[1:end]), path=path, first_line=2)
    head = parse(PromptHead, value or {}, path=path, lines=known)
    line = known.get(("system",), 1)
    block = lines[line - 1].rstrip().endswith(("|", ">", "|-", ">-", "|+", ">+")) if head.system else False
    return head, line + block, "\n" * (end + 1) + "\n".join(lines[end + 1 :])


def _compile(source: str, path: Path) -> _Part:
    try:
        return _Part(*compile_template(source, str(path)))
    except Refused as error:
        raise InputError(str(error), path=path, line=error.line) from None


def _schema(given: str | dict[str, Any] | None, path: Path) -> Mapping[str, Any] | None:
    if given is None:
        return None
    place = path
    value: Any = given
    if isinstance(given, str):
        place = path.parent / given
        try:
            value = loads(place.read_bytes())
        except OSError as error:
            raise InputError(f"{given}: cannot be read: {error.strerror}", path=path, field="schema") from None
        except ValueError as error:
            raise InputError(f"not valid JSON: {error}", path=place) from None
    if not isinstance(value, dict):
        raise InputError("should be a JSON Schema object", path=place, field="schema")
    schema = cast("dict[str, Any]", value)
    # 50 ms that most prompts do not need.
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise InputError(f"not a JSON Schema: {error.message}", path=place, field="schema") from None
    return schema


def _fault(error: Exception, template: Template, values: Mapping[str, Any], path: Path, slot: Slot) -> InputError:
    line = _line(error.__traceback__, template)
    missing = error.args[0] if isinstance(error, UndefinedError) and error.args else None
    if isinstance(missing, Missing):
        within = values if missing.within is None else missing.within
        return _unknown(missing.name, fields_of(within), path, line, what=str(missing), hint=_where(slot))
    return InputError(str(error) or type(error).__name__, path=path, line=line, hint=_where(slot))


def _unknown(
    name: str,
    known: Mapping[str, Any] | list[str],
    path: Path,
    line: int | None,
    problem: str = "",
    *,
    what: str = "",
    hint: str | None = None,
) -> InputError:
    names = [candidate for candidate in known if not candidate.startswith("_")]
    message = f"{name} {problem}" if problem else what or f"no such variable: {name}"
    return InputError(f"{message}; {suggest(name, names)}", path=path, line=line, hint=hint)


def _line(trace: TracebackType | None, template: Template) -> int | None:
    """The line of the file that was being rendered."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_globals.get("__jinja_template__") is template:
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return line


def _where(slot: Slot) -> str:
    return f"in slot {slot.id}: {' > '.join(slot.leaf)}, {slot.twist or 'standard'}"
