"""Alerts: "did it run?" answered without anyone looking.

    outbox ──► Detector: judges each event in order ────┐
    tables ──► Watch: what no event tells (nothing ran, ├──► incidents, and alerts for channels: one transaction
               a run goes on and on, a daemon is silent)┘                      │
                                                                               ▼
                                        one ChannelLoop a channel: groups, waits, sends, tries again ──► mail, webhook
                                        PingLoop: the jobs' pings, a few at a time                   ──► dead-man's URL

Judging is done by one daemon at a time, and so is serving a channel: each is a lease with a fence. What follows from an
event commits with the place in the outbox, so that each event is judged once; what is sent is written down before and
after, so that kill -9 in between sends it again under the same id and never leaves it out. A channel that fails rests
for longer and longer, and is in nobody's way: it has a thread of its own, and runs know nothing of alerts.
"""
