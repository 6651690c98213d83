"""Another scheduler's job store on PostgreSQL."""

from __future__ import annotations

import psycopg

from batchd.db.job_stores import job_store_rows


def test_a_store_on_postgresql_is_read_alike(postgres_url: str) -> None:
    """The same rows come from a database, by its URL."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE apscheduler_jobs (id text PRIMARY KEY, next_run_time float8, job_state bytea)")
        connection.execute("INSERT INTO apscheduler_jobs VALUES ('a', 5.0, '\\x80'), ('b', NULL, '')")
    assert job_store_rows(postgres_url) == [("a", 5.0, b"\x80"), ("b", None, b"")]
