"""Who types: the name that the store keeps with what a person did on the command line."""

from __future__ import annotations

import getpass
import os


def person() -> str:
    """Return the user's name, under sudo that of who called it; "somebody" where the system has no name."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):
        return "somebody"
