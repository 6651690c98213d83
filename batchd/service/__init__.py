"""The daemon as a service: what it tells its supervisor, and how it is told to read its config again.

systemd ◄── READY, STATUS, WATCHDOG ── status_line, pulse       (watchdog fed by the scheduling loop itself)
batchd reload ──► control_server ──► reload ──► the daemon's own `apply`, one config swapped for another
SIGHUP ──► the same
"""
