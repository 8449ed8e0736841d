"""Which answer store a workspace has: its own file, or the server that the recipe or the environment names."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import SecretStr

from distill.errors import InputError
from distill.gateway.store.postgres import PostgresStore
from distill.gateway.store.postgres_care import PostgresCare
from distill.gateway.store.postgres_schema import Address
from distill.gateway.store.sqlite import SqliteStore
from distill.gateway.store.sqlite_care import SqliteCare
from distill.recipe import resolve_secret

__all__ = ["STORE_VARIABLE", "open_care", "open_store", "own_store", "store_address"]

STORE_VARIABLE = "DISTILL_STORE"
"""Names the server where the recipe does not."""


def own_store(workspace: Path) -> Path:
    """The workspace's own file."""
    return workspace / ".distill" / "answers.sqlite"


def store_address(declared: SecretStr | None = None) -> SecretStr | None:
    """The server's address: the declared one, else the environment's; None means the workspace's own file.

    Raises:
        InputError: it is taken from a variable that is not set, or is no address.
    """
    try:
        found = resolve_secret(declared)
    except LookupError as error:
        raise InputError(
            f"environment variable {error.args[0]} is not set",
            field="store",
            hint=f"export {error.args[0]}=… and run the same command again",
        ) from None
    found = found or os.environ.get(STORE_VARIABLE)
    return SecretStr(Address.parse(found).url) if found else None


def open_store(workspace: Path, address: SecretStr | None = None) -> SqliteStore | PostgresStore:
    """The store, to be closed.

    Raises:
        InputError: the address is none, or its driver is not installed.
        RunError: the store cannot be opened; `StoreDamaged` when it was damaged.
    """
    if address is not None:
        return PostgresStore.open(address.get_secret_value())
    return SqliteStore.open(own_store(workspace))


def open_care(workspace: Path, address: SecretStr | None = None) -> SqliteCare | PostgresCare:
    """The same store for `distill answers`, to be closed.

    Raises:
        InputError: there is none.
        RunError: it cannot be opened.
    """
    if address is not None:
        return PostgresCare(address.get_secret_value())
    return SqliteCare(own_store(workspace))
