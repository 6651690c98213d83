"""Mail: addresses, messages, and how they leave. Knows nothing of jobs, runs or databases.

    Letter ──compose──► Parcel (bytes and an envelope) ──Transport.send──► Outcome, recipient by recipient

SMTP promises at-least-once and no more: between a server's acceptance of a message and our record of it, a machine can
die (RFC 1047). `Transport.send` therefore calls `before_data` at the last moment at which nothing is sent yet, tells a
failure after which nothing was sent from one after which nobody knows, and answers for each recipient by itself, so
that whoever records the outcome can ask again for exactly those who did not get it.
"""
