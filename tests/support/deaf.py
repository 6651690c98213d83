"""A program that reads nothing of its stdin and ends only when it is killed, or after a minute."""

from __future__ import annotations

import threading

if __name__ == "__main__":
    threading.Event().wait(60)
