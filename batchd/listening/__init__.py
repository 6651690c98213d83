"""How events reach a team's listeners.

    outbox ──► Reader (in order, nothing left out) ──► the listener's function ──► its row in batchd_listeners
                                                            │ raises
                                                            └─► same event again, after 1 s, 2 s, 4 s, … 5 min

Each listener has a thread of its own, so that a slow or broken one holds up no other, and a row that says how far it
is. The row moves only after the function has returned: a crash in between delivers the last events again, and none is
lost. One daemon at a time serves a listener; when it dies, another takes over within a minute.
"""
