"""The history of the tables: one module a version, applied in order by `batchd.store.migrate`."""
