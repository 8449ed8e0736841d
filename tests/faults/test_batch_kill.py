"""`kill -9` at every step of a batch: no batch that is paid is forgotten, none is submitted twice."""

from __future__ import annotations

import random
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.support.batch_child import STEPS, Sessions
from tests.support.batch_server import BatchServer, batch_server

PROVIDERS = ("openai", "anthropic")


def storm(folder: Path, server: BatchServer, provider: str, *, kills: int, seed: int) -> int:
    """Kill sessions until there were that many kills, then finish; returns the number of questions asked."""
    chance = random.Random(seed)
    steps = [step for step in STEPS if provider == "openai" or step != "uploaded"]
    order = [steps[n % len(steps)] for n in range(kills)]
    chance.shuffle(order)
    questions = 8
    url = server.base_url if provider == "openai" else server.anthropic_url
    with Sessions() as sessions:
        for step in order:
            server.script.extend(chance.choices(("completed", "expired:0.5", "errors:0.2"), k=1))
            # A session before may have left nothing to come to this step with: then new questions do.
            for _ in range(3):
                questions += chance.randint(3, 6)
                nth = chance.randint(1, 3) if step == "storing" else 1
                ended = sessions.run(
                    folder=folder, provider=provider, url=url, questions=questions, kill_at=step, nth=nth
                )
                if ended:
                    break
            assert ended == signal.SIGKILL, step
        server.script.clear()
        assert sessions.run(folder=folder, provider=provider, url=url, questions=questions) == 0
    return questions


def check(folder: Path, server: BatchServer, questions: int) -> None:
    told = server.stats()
    assert told["twice"] == 0
    assert told["orphans"] == 0
    assert told["running"] == 0
    with sqlite3.connect(folder / "answers.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM answers WHERE finish != ''").fetchone()[0] == told["paid"]
        assert connection.execute("SELECT count(*) FROM answers").fetchone()[0] == questions
        # Every answer is counted once, although its results may have been read twice; and nothing counts as lost.
        answers, pico, lost = connection.execute("SELECT answers, pico, lost_pico FROM runs").fetchone()
        assert answers == questions
        assert pico == connection.execute("SELECT sum(cost_pico) FROM answers").fetchone()[0]
        assert lost == 0
    with sqlite3.connect(folder / "batches.sqlite") as connection:
        states = {state for (state,) in connection.execute("SELECT DISTINCT state FROM batches")}
        assert states <= {"closed", "void"}
        assert connection.execute("SELECT count(*) FROM members").fetchone()[0] == 0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_kills_at_the_dangerous_steps(tmp_path: Path, provider: str) -> None:
    with batch_server(work_s=0.1, hold_create_s=0.1) as server, Sessions() as sessions:
        url = server.base_url if provider == "openai" else server.anthropic_url
        server.somebody_elses(provider, 8)  # type: ignore[arg-type]  # as many requests as ours
        session = {"folder": tmp_path, "provider": provider, "url": url}
        for number, step in enumerate(("creating", "creating+", "created", "storing")):
            ended = sessions.run(**session, questions=8 * (number + 1), kill_at=step, nth=3 if step == "storing" else 1)
            assert ended == signal.SIGKILL
        assert sessions.run(**session, questions=32) == 0
        check(tmp_path, server, 32)


@pytest.mark.heavy
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_hundred_kills(tmp_path: Path, provider: str) -> None:
    with batch_server(work_s=0.4, hold_create_s=0.1) as server:
        questions = storm(tmp_path, server, provider, kills=100, seed=20)
        check(tmp_path, server, questions)
