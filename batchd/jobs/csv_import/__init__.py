"""From a CSV file into a table.

    source ─► content ─► records ─► chunk ─► staging ─► table
    (file,     (gunzip,   (csv, with  (10,000   (COPY)    (casts, conflicts, and the checkpoint:
     http)      zstd)      offsets)    records)            one transaction a chunk)

The checkpoint holds the byte offset behind the chunk's last record, so that a record is imported exactly once with or
without a key. On PostgreSQL a thread reads and parses the next chunk while the server works on this one.
"""
