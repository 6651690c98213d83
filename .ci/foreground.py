# ruff: noqa: INP001 (a script, not a package)
"""Runs a command that Ctrl-C is for, and for nobody else: `make` would otherwise end with an error of its own.

On a terminal the command becomes the foreground process group, so that Ctrl-C reaches it alone and its exit code is
what counts. Without a terminal it takes this process's place.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys


def main(command: list[str]) -> int:
    """Run the command and return its exit code; a signal that ends it counts 128 and its number, as in a shell."""
    if not sys.stdin.isatty():
        os.execvp(command[0], command)  # noqa: S606 (the caller's own command)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # so that this process may take the terminal back
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # nobody could bring a stopped child back: this is no shell
    child = subprocess.Popen(command, process_group=0)  # noqa: S603
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    os.tcsetpgrp(0, child.pid)
    code = child.wait()
    os.tcsetpgrp(0, os.getpgrp())
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
