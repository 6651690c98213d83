"""Who is kept with what was done on the command line."""

from __future__ import annotations

import getpass

import pytest

from batchd.cli.person import person


def test_it_is_the_person_behind_sudo_or_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a container's user without a name is somebody."""
    monkeypatch.setenv("SUDO_USER", "ann")
    monkeypatch.setenv("LOGNAME", "root")
    assert person() == "ann"
    monkeypatch.delenv("SUDO_USER")
    assert person() == "root"

    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert person() == "somebody"
