"""How runs are executed: claim, lease, attempt, retry, reap."""
