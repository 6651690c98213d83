"""How what happens reaches browsers: one reader for all listeners of a process, and a bounded queue for each.

    outbox ─────┐
    log lines ──┼─► FeedReader ──frames──► Hub ──► Subscription (bounded) ──► EventStream ──► browser
    progress ───┘   a thread, one          the event loop      │ full
                    look per tick                              └─► dropped; comes back with its Last-Event-ID

Nobody listens: nothing is read. Somebody comes: the reader begins at a place behind which nothing can appear any more
(`batchd.store.horizon`), and from there on each frame is made once and handed to whoever wants it. Who comes back with
a `Last-Event-ID` is put on the queue first, and then given from the store what lies between its place and where its
queue begins: so nothing is missing and nothing comes twice.

A frame's id is a place in the feed (`batchd.domain.position`), not the number of a row, since state changes and log
lines each have their own numbers. Progress is a state: it has no id, and whoever comes gets the newest.
"""
