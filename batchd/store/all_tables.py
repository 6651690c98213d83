"""The store's tables, all of them: for whoever makes, compares or checks the whole.

Those of alerts, of the HTTP surface and of what may be enqueued stand in modules of their own, and tables are in the
metadata only once their module is imported. So whoever needs all of them asks here.
"""

from __future__ import annotations

from sqlalchemy import MetaData

from batchd.store import alert_schema, catalog_schema, schema, web_schema

_LAST_OF_EACH = (schema.listeners, alert_schema.alerts, web_schema.web_requests, catalog_schema.catalog)


def all_tables() -> MetaData:
    """Return the metadata of every table and index that the migrations make."""
    assert all(table.metadata is schema.metadata for table in _LAST_OF_EACH)
    return schema.metadata
