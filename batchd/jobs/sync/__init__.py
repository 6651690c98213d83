"""The parts of `sync`: an API, a file or a query on its way into a table.

    fetch    source -> pages of records -> texts by the fields -> a staging table of the target's own column types
    diff     one comparison in SQL of the staging table with the target -> a list of what is to do, mostly short
    write    that list, in bounded transactions; removals first, then changes, then what is new

Each page commits with the checkpoint, so fetched pages survive a crash; so does each step of the write. The checkpoint
says which rows the staging tables should hold: on PostgreSQL they are unlogged, and a server that crashed empties them.
Then, and when what was fetched has grown too old to be written, the run starts over with the fetch.

Exactly once does not hang on the checkpoint alone: every write compares again. A row that equals the source by now, or
that somebody else has inserted meanwhile, is left as it is.

What a run leaves for the next one (watermark, validators, the moment of the last full run) commits with its last write.
"""
