"""The system's certificates are read once, until they change."""

from __future__ import annotations

import os
import shutil
import ssl
from importlib.util import find_spec
from pathlib import Path

import pytest

from batchd.jobs.http.trust import trusted


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Certificates that SSL_CERT_FILE names (pip's own, since a bare machine may have none)."""
    pip = find_spec("pip")
    assert pip
    assert pip.origin
    source = Path(pip.origin).parent / "_vendor" / "certifi" / "cacert.pem"
    copy = tmp_path / "bundle.pem"
    shutil.copy(source, copy)
    monkeypatch.setenv("SSL_CERT_FILE", str(copy))
    return copy


def test_the_certificates_are_read_once(bundle: Path) -> None:
    """Two clients share what was read, and it verifies host and certificate."""
    assert bundle.exists()
    context = trusted()
    assert trusted() is context
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.cert_store_stats()["x509_ca"] > 0


def test_changed_certificates_are_read_again(bundle: Path) -> None:
    """A bundle that was renewed counts without a restart."""
    before = trusted()
    later = bundle.stat().st_mtime_ns + 1_000_000_000
    os.utime(bundle, ns=(later, later))
    assert trusted() is not before
