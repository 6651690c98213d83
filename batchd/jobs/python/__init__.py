"""A team's own functions as jobs: what they take, how they are called, and the decorator that makes them jobs.

A function's arguments are checked three times against its signature: by `batchd check`, when a run is queued from
Python, and when the run begins, whoever queued it. What is stored is JSON; the annotations turn it into values again.
"""
