"""The page that somebody wanted before signing in, so that a link in an alert leads there after all."""

from __future__ import annotations

import re
from urllib.parse import urlencode

_OURS = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,1000}")
"""A path of this site. Browsers take `//host` and `/\\host` for another one, and leave out tabs and line ends."""


def wanted_page(told: str) -> str:
    """Return the path that a browser may be sent to; what is no path of ours becomes the overview."""
    return told if _OURS.fullmatch(told) and not told.startswith(("/login", "/logout")) else "/"


def sign_in_path(path: str, query: str) -> str:
    """Return where whoever wanted this page signs in."""
    wanted = wanted_page(f"{path}?{query}" if query else path)
    return "/login" if wanted == "/" else f"/login?{urlencode({'to': wanted})}"
