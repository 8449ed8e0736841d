"""How a session ended, in one `Summary`: the state and its reason, the fates, and where the money went.

Money adds up like rows do. What answers cost is split by the fate of what they were asked for:

    kept + rejected + failed + pending = paid by this run (all its sessions) + reused (paid by other runs)

`pending` is the cost of answers whose slots were not decided, because the run stopped first. What calls without an
answer may have cost stands apart, as `unknown_cost_usd`.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from distill.engine.accounting import Account
from distill.engine.events import State, Summary
from distill.engine.ledger import Ledger
from distill.engine.prepare import Prepared
from distill.engine.rounds import BARREN_ROUNDS
from distill.engine.rundir import RunDir
from distill.engine.session import as_tokens
from distill.errors import DistillError, RunError
from distill.gateway import Gateway
from distill.io.redact import Redactor

__all__ = ["conclude"]

_NAMED = 8  # leaves that are named in a reason


def conclude(
    prepared: Prepared,
    directory: RunDir,
    account: Account,
    gateway: Gateway,
    *,
    ledger: Ledger,
    halt: DistillError | None,
    seconds: float,
    redactor: Redactor,
    store_bytes: int = 0,
) -> Summary:
    """The summary of a session whose gateway is closed; `halt` is why it ended before its target, if it did."""
    recipe = prepared.recipe
    state: State
    if account.kept >= account.target:
        state, reason = "complete", f"{account.kept} rows kept"
    elif isinstance(halt, RunError):
        state, reason = "failed", str(halt)
    elif halt is not None:
        state, reason = "stopped", str(halt)
    else:
        state, reason = "short", _short(account)
    stats = gateway.stats
    decided = account.cost_kept + account.cost_rejected + account.cost_failed
    return Summary(
        run=directory.path,
        state=state,
        reason=redactor(reason),
        counts=account.as_json(),
        leaves=account.leaves_as_json(),
        short=account.short() if state != "complete" else {},
        cost_usd=gateway.spent,
        unknown_cost_usd=gateway.unknown_cost,
        reused_cost_usd=ledger.reused,
        cost_by_fate_usd={
            "kept": account.cost_kept,
            "rejected": account.cost_rejected,
            "failed": account.cost_failed,
            **({"verdicts": ledger.verdicts} if ledger.verdicts else {}),
            "pending": max(Decimal(0), gateway.spent + ledger.reused - ledger.verdicts - decided),
        },
        tokens=as_tokens(stats.values()),
        teachers={name: teacher.as_dict() for name, teacher in stats.items()},
        seconds=seconds,
        resumed_answers=sum(teacher.replayed + teacher.reused for teacher in stats.values()),
        requests=sum(teacher.sent for teacher in stats.values()),
        simulated=any(recipe.teachers[name].provider == "simulated" for name in stats),
        store_bytes=store_bytes,
    )


def _short(account: Account) -> str:
    fates = Counter({f"failed: {failure}": count for failure, count in account.failed.items()})
    for name, reasons in account.rejected.items():
        fates.update({f"rejected by {name}: {reason}": count for reason, count in reasons.items()})
    losses = ", ".join(f"{fate} {count}" for fate, count in fates.most_common(3))
    dry = ["/".join(leaf) for leaf, count in account.leaves.items() if count.barren_rounds >= BARREN_ROUNDS]
    if dry:
        named = ", ".join(dry[:_NAMED]) + (", …" if len(dry) > _NAMED else "")
        reason = f"{len(dry)} {'leaf' if len(dry) == 1 else 'leaves'} stopped yielding: {named}"
    else:
        reason = f"{account.rounds} rounds did not fill the target (plan.max_rounds)"
    return f"{reason} ({losses})" if losses else reason
