"""Enqueue from anywhere: a library for applications, without any part of the daemon.

    client = batchd.Client("postgresql://…")
    client.enqueue("send-email", {"to": "ada@example.com"}, queue="critical")
    with Session(engine) as session, session.begin():
        session.add(order)
        client.enqueue("send-receipt", {"order": order.number}, connection=session)

`import batchd` alone imports nothing of it; docs/enqueue.md says what each option means.
"""

from batchd.client.async_client import AsyncClient
from batchd.client.client import Client
from batchd.domain.run_request import RunRequest
from batchd.errors import EnqueueRefused
from batchd.store.queries import RunView
from batchd.store.unique_runs import Enqueued, Outcome

__all__ = ["AsyncClient", "Client", "EnqueueRefused", "Enqueued", "Outcome", "RunRequest", "RunView"]
