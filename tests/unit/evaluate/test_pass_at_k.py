"""Programs that a model wrote: estimated without bias, run where they can do no harm."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from distill.errors import InputError
from distill.evaluate import Generated, Item, Prediction, Student, evaluate, parse_metric
from distill.evaluate.holdout import Holdout
from distill.evaluate.metrics.passes import pass_at_k, program_of
from distill.evaluate.sandbox import Limits, require_sandbox, run_program, run_programs

try:
    require_sandbox()
    SANDBOX = True
except InputError:
    SANDBOX = False
sandboxed = pytest.mark.skipif(not SANDBOX, reason="this machine allows no namespaces")
QUICK = Limits(seconds=20)
"""Far more than any of these takes: a busy machine is no failure."""


@pytest.mark.parametrize(("n", "passed", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 4), (10, 3, 5)])
def test_the_estimate_is_the_share_of_draws_of_k_that_hold_a_passing_program(n: int, passed: int, k: int) -> None:
    draws = list(combinations([True] * passed + [False] * (n - passed), k))
    assert pass_at_k(n, passed, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_the_code_of_an_answer_is_its_first_python_block() -> None:
    assert program_of("Sure:\n```python\nx = 1\n```\nand\n```python\ny\n```") == "x = 1\n"
    assert program_of("```sh\nls\n```\n```py\nx = 2\n```") == "x = 2\n"
    assert program_of("x = 3") == "x = 3"
    assert program_of("```python\nx = 4") == "x = 4"


@sandboxed
def test_a_right_program_passes_and_a_wrong_one_says_why() -> None:
    tests = "assert add(2, 3) == 5, 'sum'"
    right, wrong, broken, absent = run_programs(
        [
            ("def add(a, b):\n    return a + b", tests),
            ("def add(a, b):\n    return a - b", tests),
            ("def add(a, b:", tests),
            ("", tests),
        ],
        QUICK,
    )
    assert right.passed
    assert (wrong.ending, wrong.why) == ("failed", "AssertionError: sum")
    assert broken.why.startswith("SyntaxError")
    assert absent.why.startswith("NameError")


@sandboxed
def test_the_standard_library_is_there() -> None:
    program = "import json, re, math, collections, datetime, decimal, hashlib, itertools, random, threading"
    assert run_program(program, "t = threading.Thread(target=print); t.start(); t.join()", QUICK).passed


ESCAPES = {
    "leaves before its tests": "import os; os._exit(0)",
    "raises SystemExit": "raise SystemExit(0)",
    "is killed by a signal": "import os; os.kill(os.getpid(), 9)",
    "recurses without end": "def f(): f()\nf()",
    "takes all memory": "x = bytearray(4 << 30)",
    "takes memory bit by bit": "x = []\nwhile True: x.append(bytearray(1 << 24))",
    "reads the home folder": "import os; open(os.path.join(HOME, 'secret.txt')).read()",
    "reads what is mounted elsewhere": "open('/etc/passwd').read()",
    "looks for processes": "import os; os.listdir('/proc')",
    "writes a large file": "open('big', 'wb').write(bytes(64 << 20))",
    "writes into the libraries": "open(os.__file__, 'a')",
    "opens a connection": "import socket; socket.create_connection(('127.0.0.1', PORT), 2)",
    "resolves a name": "import socket; socket.getaddrinfo('example.org', 80)",
    "becomes another user": "import os; os.setuid(0)",
    "looks at the environment": "import os; assert not os.environ.get('CANARY'); assert os.environ.get('HOME')",
    "calls a shell": "import subprocess; subprocess.run(['/bin/sh', '-c', 'cat /etc/passwd'], check=True)",
}


@sandboxed
@pytest.mark.parametrize("name", ESCAPES)
def test_a_program_that_does_what_it_should_not_is_a_failed_item(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setenv("CANARY", "found")
    (tmp_path / "secret.txt").write_text("secret")
    tmp_path.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = ESCAPES[name].replace("HOME", repr(str(tmp_path)), 1 if name.startswith("reads the") else 0)
        program = program.replace("PORT", str(server.getsockname()[1]))
        outcome = run_program(f"import os\n{program}", "pass", QUICK)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert not outcome.passed
    assert outcome.ending != "timeout"
    assert "secret" not in outcome.why or "No such file" in outcome.why


@sandboxed
@pytest.mark.parametrize(
    ("program", "seconds", "ending"),
    [
        ("while True: pass", 2, "timeout"),
        ("import time\ntime.sleep(60)", 2, "timeout"),
        ("while True: print('x' * 1000, flush=True)", 60, "output"),
    ],
)
def test_a_program_without_end_is_ended(program: str, seconds: float, ending: str) -> None:
    assert run_program(program, "pass", Limits(seconds=seconds)).ending == ending


BOMB = """
import os, time
for _ in range(3):
    try:
        while True:
            if os.fork() == 0:
                os.setsid()
                time.sleep(0.01)
    except OSError:
        pass
time.sleep(60)
"""


@sandboxed
def test_a_fork_bomb_dies_with_its_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run_program(BOMB, "pass", Limits(seconds=3, processes=12)).ending in ("timeout", "failed", "killed")
    assert not _processes(str(tmp_path))


def _processes(folder: str) -> set[str]:
    """Processes of a sandbox that was made in `folder`: its first one is among them, and without it none lives."""
    found: set[str] = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if b"sandbox_boot" in command and folder.encode() in command:
            found.add(name)
    return found


# -- in an evaluation ----------------------------------------------------------------------------------------------


@dataclass
class Coder:
    """Draws programs from a list, one a draw."""

    programs: tuple[str, ...]
    name: str = "student"
    number: int = 0
    asked: list[int] | None = None

    def about(self) -> dict[str, Any]:
        return {"number": self.number}

    def drawing(self, number: int, temperature: float) -> Coder:
        return replace(self, number=number + 1)

    async def answer(self, items: Sequence[Item], progress: Callable[[int], None]) -> Generated:
        if self.asked is not None:
            self.asked.append(self.number)
        return Generated([Prediction(self.programs[self.number]) for _ in items], 1.0)


TESTS = "assert f(2) == 4"
PROBLEMS = Holdout((Item("1", ({"role": "user", "content": "square"},), "", tests=TESTS, has_answer=False),))


@sandboxed
def test_draws_are_made_once_kept_and_counted(tmp_path: Path) -> None:
    good, bad = "```python\ndef f(x): return x * x\n```", "def f(x): return x + 1"
    system = Coder((bad, bad, good, good, bad), asked=[])
    metrics = [parse_metric(name, allow_code=True) for name in ("pass_at_k:k=1", "pass_at_k:k=2,n=4")]
    card = asyncio.run(evaluate([system], PROBLEMS, metrics, tmp_path))
    found = card.systems["student"].metrics
    assert found["pass_at_k:k=1"].value == 0  # the greedy answer
    assert found["pass_at_k:k=2,n=4"].value == pytest.approx(pass_at_k(4, 2, 2))
    assert card.systems["student"].details["pass_at_k:k=2,n=4"]["programs"] == {"failed": 2, "passed": 2}
    assert system.asked == [0, 1, 2, 3, 4]
    asyncio.run(evaluate([system], PROBLEMS, metrics, tmp_path))
    assert system.asked == [0, 1, 2, 3, 4]


def test_a_student_draws_other_answers_and_the_same_ones_again(student: Path) -> None:
    greedy = Student(str(student), max_tokens=12, dtype="float32", latency_items=0)
    asked = [Item(str(n), ({"role": "user", "content": f"question {n}"},), "") for n in range(3)]

    def texts(of: Student) -> list[str]:
        return [prediction.text for prediction in of.generate(asked).predictions]

    first, second = greedy.drawing(0, 0.8), greedy.drawing(1, 0.8)
    assert texts(first) == texts(first)
    assert texts(first) != texts(second)
    assert first.about() != second.about() != greedy.about()


def test_code_runs_only_when_the_user_says_so(tmp_path: Path) -> None:
    system = Coder(("x",), asked=[])
    with pytest.raises(InputError, match="say --allow-code"):
        asyncio.run(evaluate([system], PROBLEMS, [parse_metric("pass_at_k")], tmp_path))
    assert system.asked == []
