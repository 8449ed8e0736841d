"""Questions that may take a day, at half the price: the gateway's way through the providers' batch APIs.

To those who ask nothing changes: an ask is merely slow. Under it questions gather (`desk`), a batch of them is written
down before it is sent (`ledger`), submitted, recognised after a crash and watched (`courier`), and its results are
stored as any answers are (`harvest`). Keys are the ones of online answers, so both share one store.
"""

from distill.gateway.batch.batching import Batching
from distill.gateway.batch.desk import BatchDesk
from distill.gateway.batch.ledger import BatchLedger

__all__ = ["BatchDesk", "BatchLedger", "Batching"]
