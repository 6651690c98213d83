"""Databases: connections, and whatever depends on the dialect (`Dialect` is the list of what differs)."""
