"""Where answers are kept: by key, on disk before anybody sees them, with what they cost.

`base` is what the gateway asks of a store, `care` what people do with one. Both databases share `sql_store`, `sql_care`
and the statements of `dialect`; each has its connections, its tables (`*_schema`) and its way of committing a batch
(`*_commit`), which the one thread that writes (`writer`) calls.
"""

from distill.gateway.store.base import AnswerStore, Record, Spent, StoreStats
from distill.gateway.store.care import Flaw, StoreCare, United, check, unite
from distill.gateway.store.keys import request_key
from distill.gateway.store.opening import STORE_VARIABLE, open_care, open_store, own_store, store_address
from distill.gateway.store.postgres import PostgresStore
from distill.gateway.store.postgres_care import PostgresCare
from distill.gateway.store.postgres_schema import Address
from distill.gateway.store.sqlite import SqliteStore, size_of
from distill.gateway.store.sqlite_care import SqliteCare

__all__ = [
    "STORE_VARIABLE",
    "Address",
    "AnswerStore",
    "Flaw",
    "PostgresCare",
    "PostgresStore",
    "Record",
    "Spent",
    "SqliteCare",
    "SqliteStore",
    "StoreCare",
    "StoreStats",
    "United",
    "check",
    "open_care",
    "open_store",
    "own_store",
    "request_key",
    "size_of",
    "store_address",
    "unite",
]
