"""The README works as it is written: its files are made, its commands run, and they print what it shows.

The fast test types the commands into this process; the heavy one types them into a real shell, and trains. All that
differs from what a reader does is the port of the practice teacher.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.loopback import Loopback

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"^(?:# |\{# )([\w/]+\.(?:yaml|j2))(?: #\})?\n")
PORT = "127.0.0.1:8000"


@dataclass(frozen=True)
class Snippet:
    language: str
    text: str


def snippets(title: str) -> list[Snippet]:
    """The fenced blocks of one section, in order."""
    section = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return [Snippet(language, text) for language, text in FENCE.findall(section)]


RECIPE = snippets("A first recipe of your own in five minutes")
PYTHON = snippets("From Python")
TRAINING = next(number for number, snippet in enumerate(RECIPE) if "\ndistill train " in snippet.text)


class Reader:
    """Follows the README: writes its files, types its commands into a shell that stays open."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        self.environment.pop("TEACHER_KEY", None)

    def follow(self, *parts: list[Snippet]) -> None:
        for snippet in (snippet for part in parts for snippet in part):
            if snippet.language in ("yaml", "jinja"):
                self.write(snippet.text)
            elif snippet.language == "sh":
                for line in snippet.text.splitlines():
                    self.type(line)
            elif snippet.language == "console":
                # `$ command` lines, each with what it prints below it.
                for part in re.split(r"^\$ ", snippet.text, flags=re.MULTILINE)[1:]:
                    command, *shown = part.splitlines()
                    compare(shown, self.type(command))
            elif snippet.language == "python":
                assert self.execute(snippet.text).strip(), "the snippet prints rows"

    def write(self, text: str) -> None:
        name = NAMED.match(text)
        assert name, f"a snippet that does not say which file it is:\n{text}"
        path = self.folder / name[1]
        assert not path.exists(), f"init made {path} already"
        path.write_text(text.replace(PORT, f"127.0.0.1:{self.port}"), "utf-8")

    def type(self, line: str) -> str:
        """One line of shell; returns what it prints."""
        words = shlex.split(line)
        if words[0] == "cd":
            self.folder /= words[1]
        elif words[0] == "export":
            name, _, value = words[1].partition("=")
            self.environment[name] = value
        else:
            return self.run(line)
        return ""

    def run(self, line: str) -> str:
        return self._process("bash", "-euc", line)

    def execute(self, code: str) -> str:
        return self._process(sys.executable, "-c", code)

    def _process(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}"
        return done.stdout


class QuickReader(Reader):
    """The same without processes."""

    def run(self, line: str) -> str:
        from distill.cli import main

        program, *arguments = shlex.split(line)
        assert program == "distill"
        with self._here() as printed, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [program, *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        assert ended.value.code == 0, f"{line}\n{printed.getvalue()}"
        return printed.getvalue()

    def execute(self, code: str) -> str:
        with self._here() as printed:
            exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
        return printed.getvalue()

    @contextlib.contextmanager
    def _here(self) -> Generator[io.StringIO]:
        """In the reader's folder, with the reader's key; what is printed is caught."""
        printed = io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            patch.setenv("TEACHER_KEY", self.environment.get("TEACHER_KEY", ""))
            patch.chdir(self.folder)
            yield printed


def compare(shown: list[str], printed: str) -> None:
    """Every shown line was printed, in that order. Times, the folder's place and the size of the
    store are the machine's own; a slow machine
    prints progress in between."""
    lines = iter([_alike(line) for line in printed.splitlines()])
    for line in shown:
        assert _alike(line) in lines, f"the README shows:\n{line}\nprinted was:\n{printed}"


def _alike(line: str) -> str:
    line = re.sub(r"\S*/(?=garden/runs/)", "", line.rstrip())
    line = re.sub(r"\([\d.]+ [kM]B\)", "(SIZE)", line)
    return re.sub(r"(?<= )[\d.]+ ?(?:ms|s|m|min)\b( [\d.]+ ?s\b)?", "TIME", line)


@pytest.fixture
def teacher() -> Iterator[Loopback]:
    """The practice teacher in a thread: the commands have loops of their own."""
    server, ready, ended = Loopback(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with server:
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    yield server
    loop.call_soon_threadsafe(ended.set)
    thread.join()
    loop.close()


def test_the_first_recipe_and_the_python_snippets_work_as_written(tmp_path: Path, teacher: Loopback) -> None:
    reader = QuickReader(tmp_path, teacher.port)
    reader.follow(RECIPE[:TRAINING], PYTHON)
    assert {path.name for path in (reader.folder / "runs").iterdir()} == {"garden-1", "rehearsal-1"}
    assert teacher.paid.total() == len(teacher.paid), "the preview's answers were asked for again"
    told = snippets("What a run leaves on disk")[0].text
    files = re.findall(r"[\w./]+\.(?:sqlite|parquet|html|jsonl|json)\b", told)
    assert len(files) == 8
    for name in files:
        assert any((folder / name).is_file() for folder in (reader.folder, reader.folder / "runs/garden-1")), name


@pytest.mark.heavy
def test_the_student_of_the_first_recipe_is_trained_as_written(tmp_path: Path, teacher: Loopback) -> None:
    from distill.models import list_models

    if not next(model for model in list_models() if model.name == "smollm2-135m-instruct").present:
        pytest.skip("the student's weights are not here: distill models pull smollm2-135m-instruct")
    reader = Reader(tmp_path, teacher.port)
    reader.follow(RECIPE)
    assert list((reader.folder / "runs/garden-1/train").rglob("adapter_model.safetensors"))
    assert not (reader.folder / "runs/garden-2").exists(), "training changed the run"


def test_the_practice_teacher_stands_at_the_port_of_the_recipe() -> None:
    assert f"tests.support.loopback --port {PORT.rpartition(':')[2]}" in README
    assert any(f"http://{PORT}/v1" in snippet.text for snippet in RECIPE)


def test_everything_the_readme_links_to_is_there() -> None:
    linked = set(re.findall(r"\]\((?!#)([^)#]+)\)", README))
    assert linked
    assert not [name for name in sorted(linked) if not (ROOT / name).exists()]
