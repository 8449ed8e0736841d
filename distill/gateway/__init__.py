"""The one door to every teacher: durable answers, rate limits, adaptive concurrency, retries, money."""

from distill.gateway.batch import Batching, BatchLedger
from distill.gateway.care import Flaw, StoreCare, United, check, unite
from distill.gateway.gateway import Gateway
from distill.gateway.keys import request_key
from distill.gateway.money import Tariff, cost, price_for, tariff_for, usd
from distill.gateway.opening import STORE_VARIABLE, open_care, open_store, own_store, store_address
from distill.gateway.postgres import PostgresStore
from distill.gateway.postgres_care import PostgresCare
from distill.gateway.postgres_schema import Address
from distill.gateway.sqlite import SqliteStore, size_of
from distill.gateway.sqlite_care import SqliteCare
from distill.gateway.stats import Event, TeacherStats
from distill.gateway.store import AnswerStore, Record, Spent, StoreStats

__all__ = [
    "STORE_VARIABLE",
    "Address",
    "AnswerStore",
    "BatchLedger",
    "Batching",
    "Event",
    "Flaw",
    "Gateway",
    "PostgresCare",
    "PostgresStore",
    "Record",
    "Spent",
    "SqliteCare",
    "SqliteStore",
    "StoreCare",
    "StoreStats",
    "Tariff",
    "TeacherStats",
    "United",
    "check",
    "cost",
    "open_care",
    "open_store",
    "own_store",
    "price_for",
    "request_key",
    "size_of",
    "store_address",
    "tariff_for",
    "unite",
    "usd",
]
