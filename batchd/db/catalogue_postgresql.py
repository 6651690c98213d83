"""PostgreSQL's catalogue: see `batchd.db.catalogue`."""

from __future__ import annotations

from sqlalchemy import Connection, text

from batchd.db.catalogue_facts import ColumnFacts, IndexFacts, Located
from batchd.db.identifiers import Name, written

_TABLES = text("""
    SELECT c.oid::bigint, n.nspname::text, c.relname::text, pg_table_is_visible(c.oid), c.relkind::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND lower(c.relname) = lower(:name)
""")
_ALL_TABLES = text("""
    SELECT n.nspname::text, c.relname::text, pg_table_is_visible(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND n.nspname NOT LIKE 'pg\\_toast%' AND NOT c.relispartition
    ORDER BY 1, 2 LIMIT 5000
""")
_COLUMNS = text("""
    SELECT a.attname::text, format_type(base.oid, -1), NOT (a.attnotnull OR t.typnotnull),
           format_type(a.atttypid, a.atttypmod), COALESCE(pg_get_expr(d.adbin, d.adrelid), t.typdefault),
           CASE WHEN base.oid IN ('varchar'::regtype, 'bpchar'::regtype) AND base.length > 4 THEN base.length - 4 END,
           d.oid IS NOT NULL OR t.typdefault IS NOT NULL OR a.attidentity <> '',
           a.attgenerated = '' AND a.attidentity <> 'a'
    FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid
    CROSS JOIN LATERAL (
        SELECT COALESCE(NULLIF(t.typbasetype, 0), t.oid) AS oid,
               CASE WHEN t.typbasetype <> 0 THEN t.typtypmod ELSE a.atttypmod END AS length
    ) AS base
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = :oid AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum
""")
# Expressions have attnum 0 and so no name; `indnkeyatts` leaves INCLUDE columns out.
_INDEXES = text("""
    SELECT array_agg(a.attname::text ORDER BY k.position), i.indisunique, i.indisprimary, i.indimmediate
    FROM pg_index i
    JOIN pg_class x ON x.oid = i.indexrelid
    JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
    LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid = :oid AND i.indisvalid AND i.indpred IS NULL AND k.position <= i.indnkeyatts
    GROUP BY i.indexrelid, i.indisunique, i.indisprimary, i.indimmediate
    ORDER BY i.indisprimary DESC, i.indexrelid
""")
_CORRELATION = text("""
    SELECT attname::text AS attname, correlation::float8 AS correlation FROM pg_stats
    WHERE schemaname = :schema AND tablename = :name AND correlation IS NOT NULL
""")


def locate(connection: Connection, schema: Name | None, table: Name) -> Located | None:
    """Return the table that the name means under the search path; raises ValueError for a view or an ambiguity."""
    rows = connection.execute(_TABLES, {"name": table.text}).all()
    if schema is None:
        rows = [row for row in rows if row[3]]
    else:
        meant = schema.choose({row[1] for row in rows})
        rows = [row for row in rows if row[1] == meant]
    name = table.choose({row[2] for row in rows})
    for oid, its_schema, its_name, _, kind in rows:
        if its_name == name:
            if kind not in {"r", "p"}:
                raise ValueError(f"{written(its_schema, its_name)} is a view or a foreign table, not a table")
            return Located(its_schema, its_name, oid, is_partitioned=kind == "p")
    return None


def all_tables(connection: Connection) -> list[str]:
    """Return the tables that a hint may name, with their schema where the search path does not find them."""
    return [
        written(None if visible else schema, name) for schema, name, visible in connection.execute(_ALL_TABLES).all()
    ]


def columns(connection: Connection, table: Located) -> tuple[ColumnFacts, ...]:
    """Return the columns in their order; a domain counts as its base type."""
    return tuple(ColumnFacts(*row) for row in connection.execute(_COLUMNS, {"oid": table.oid}))


def indexes(connection: Connection, table: Located) -> tuple[IndexFacts, ...]:
    """Return the usable B-tree indexes over the whole table."""
    return tuple(
        IndexFacts(tuple(names), unique, primary, immediate)
        for names, unique, primary, immediate in connection.execute(_INDEXES, {"oid": table.oid})
        if all(name is not None for name in names)
    )


def key(connection: Connection, table: Located, indexes: tuple[IndexFacts, ...]) -> tuple[str, ...]:
    """Return the primary key, else a unique key without NULLs, else nothing."""
    required = {column.name for column in columns(connection, table) if not column.nullable}
    for index in indexes:
        if index.primary or (index.unique and required.issuperset(index.columns)):
            return index.columns
    return ()


def correlation(connection: Connection, table: Located) -> dict[str, float]:
    """Return what ANALYZE found; empty for a table that was never analysed."""
    rows = connection.execute(_CORRELATION, {"schema": table.schema, "name": table.name})
    return {row.attname: row.correlation for row in rows}
