"""The one door to every teacher: durable answers, rate limits, adaptive concurrency, retries, money."""

from distill.gateway.batch import Batching, BatchLedger
from distill.gateway.gateway import Gateway
from distill.gateway.keys import request_key
from distill.gateway.money import Tariff, cost, price_for, tariff_for, usd
from distill.gateway.sqlite import SqliteStore
from distill.gateway.stats import Event, TeacherStats
from distill.gateway.store import AnswerStore, Record, Spent, StoreStats

__all__ = [
    "AnswerStore",
    "BatchLedger",
    "Batching",
    "Event",
    "Gateway",
    "Record",
    "Spent",
    "SqliteStore",
    "StoreStats",
    "Tariff",
    "TeacherStats",
    "cost",
    "price_for",
    "request_key",
    "tariff_for",
    "usd",
]
