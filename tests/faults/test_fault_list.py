"""Every fault a teacher may show ends as docs/faults.md says: state, exit code, fate, and books that add up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distill.errors import FailureClass
from tests.support.faults import FAULTS
from tests.support.loopback import Loopback
from tests.support.sessions import Ended, check_books, session
from tests.support.workspaces import probe

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"

SAID = {"auth": "refused the key", "quota": "no quota left"}
"""How a message names a class that ends the run at the first reply."""


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    fault: str
    state: str
    code: int
    failure: str
    among: str
    billed: bool


def table() -> list[Case]:
    cases: list[Case] = []
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 8 and cells[0].startswith("`"):
            fault, _, _, state, code, failure, among, billed = cells
            cases.append(Case(fault.strip("`"), state, int(code), failure, among, billed == "yes"))
    return cases


CASES = table()


def case(name: str) -> Case:
    return next(case for case in CASES if case.fault == name)


async def run(folder: Path, server: Loopback, *, target: int = 12, **teacher: Any) -> Ended:
    patient = {"max_attempts": 3, "timeout_s": 0.25 if server.faults.keys() & {"timeout", "slow"} else 10}
    return await session(probe(folder, server.base_url, target=target, teacher={**patient, **teacher}))


def test_the_table_holds_every_fault() -> None:
    assert sorted(case.fault for case in CASES) == sorted(FAULTS)
    known = {failure.value for failure in FailureClass} | {"–"}
    assert {case.failure for case in CASES} <= known


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
async def test_a_fault_that_is_all_there_is(case: Case, tmp_path: Path) -> None:
    async with Loopback(faults={case.fault: 1.0}) as server:
        ended = await run(tmp_path, server)
        assert (ended.told["state"], ended.code) == (case.state, case.code)
        check_books(ended)
        assert (ended.told["unknown_cost_usd"] > 0) == case.billed
        assert ended.path.joinpath("dataset/README.md").is_file()
        if case.failure == "–":
            assert ended.told["kept"] == 12
            return
        assert ended.told["kept"] == 0
        said = ended.told["reason"] if ended.error is None else ended.error.message
        assert SAID.get(case.failure, f"({case.failure})") in said
        assert set(ended.told["failed"]) <= {case.failure}
        # The same command comes to the same end, and asks no more than it must: stored refusals stay stored.
        assert server.requests <= 150


@pytest.mark.parametrize("case", [case for case in CASES if case.fault != "huge"], ids=lambda case: case.fault)
async def test_a_fault_among_good_answers(case: Case, tmp_path: Path) -> None:
    target = 120
    async with Loopback(faults={case.fault: 0.03}, seed=4) as server:
        ended = await run(tmp_path, server, target=target)
        hits = server.hits[case.fault]
    assert hits > 0
    check_books(ended)
    told = ended.told
    if case.among == "stops":
        assert (told["state"], ended.code) == (case.state, case.code)
        assert told["pending"] > 0
        return
    assert (told["state"], ended.code, told["kept"]) == ("complete", 0, target)
    assert told["failed"] == ({} if case.among == "kept" else {case.among: hits})
    assert (told["unknown_cost_usd"] > 0) == case.billed


THE_OTHER = (
    *("429", "529", "timeout", "truncated_json", "empty_choices", "refusal", "content_filter_400", "length"),
    *("lone_surrogate", "400_context", "404", "401", "insufficient_quota"),
)


@pytest.mark.parametrize("name", THE_OTHER)
async def test_the_other_dialect_ends_the_same_way(name: str, tmp_path: Path) -> None:
    async with Loopback(faults={name: 1.0}) as server:
        ended = await run(tmp_path, server, provider="anthropic", base_url=server.anthropic_url)
    expected = case(name)
    assert (ended.told["state"], ended.code) == (expected.state, expected.code)
    said = ended.told["reason"] if ended.error is None else ended.error.message
    assert SAID.get(expected.failure, f"({expected.failure})") in said
    check_books(ended)


async def test_everything_at_once(tmp_path: Path) -> None:
    """All faults that pass or cost a slot, one after the other through one run: the target is reached all the same."""
    passing = [case.fault for case in CASES if case.among != "stops" and case.fault not in ("huge", "timeout", "slow")]
    async with Loopback(faults=dict.fromkeys(passing, 0.006), jitter=0.5, latency=0.002) as server:
        ended = await run(tmp_path, server, target=600, max_attempts=6)
        assert len(server.hits) > 20
    assert (ended.told["state"], ended.told["kept"]) == ("complete", 600)
    check_books(ended)
    costly = {case.fault: case.among for case in CASES if case.among not in ("kept", "stops")}
    expected: dict[str, int] = {}
    for fault, failure in costly.items():
        if server.hits[fault]:
            expected[failure] = expected.get(failure, 0) + server.hits[fault]
    assert ended.told["failed"] == expected
