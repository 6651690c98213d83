"""Mail into a folder: one `.eml` file a message, for tests and for teams without a mail server."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from batchd.mail.delivery import MailUnavailable, Outcome
from batchd.mail.headers import token_line
from batchd.mail.message import Parcel

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


class FolderTransport:
    """See `Transport`. The file's name comes from the Message-ID, so a message that is sent again is there once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def send(self, parcel: Parcel, before_data: Callable[[], None]) -> Outcome:
        """Write the message whole or not at all: a temporary name, fsync, rename."""
        before_data()
        final = self._folder / (_UNFIT.sub("_", parcel.message_id.partition("@")[0]) + ".eml")
        draft = final.with_name(f".{final.name}.{os.getpid()}.part")
        # The envelope, which no header of the message tells (a bcc); mail servers write the same line.
        envelope = "".join(token_line("X-Envelope-To", each) for each in parcel.recipients if each.isascii())
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                file.write(envelope.encode() + parcel.content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(final)
            _sync(self._folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise MailUnavailable(f"cannot write mail into {self._folder}: {error.strerror}") from error
        return Outcome(parcel.recipients, {}, {}, f"written to {final}")

    def greet(self) -> str:
        """Return whether the folder can be written to."""
        existing = next((each for each in (self._folder, *self._folder.parents) if each.exists()), Path("/"))
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise MailUnavailable(f"{existing} cannot be written to", hint="check its owner and mode")
        return "the folder can be written to" if existing == self._folder else "the folder will be made"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
