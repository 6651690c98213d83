"""Who asks, and what that allows."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from batchd.domain.access import Role


class Access(enum.StrEnum):
    """Who may call a route."""

    PUBLIC = "public"
    """Everybody: the answer must hold nothing that matters."""

    VIEWER = "viewer"
    """Whoever may read."""

    OPERATOR = "operator"
    """Whoever may change things."""

    METRICS = "metrics"
    """A token of the role `metrics`, a viewer, or everybody where the config says so."""

    CRON = "cron"
    """The config's `cron_secret`, or an operator's token."""


class Via(enum.StrEnum):
    """How somebody said who they are."""

    NOTHING = "nothing"
    TOKEN = "token"  # noqa: S105 (a word, no secret)
    SESSION = "session"
    CRON_SECRET = "cron_secret"  # noqa: S105 (a word, no secret)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the token's name (never the token), its role, and how they said it. `token_id` None: no token."""

    name: str
    role: Role | None
    via: Via
    token_id: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether they said who they are, and it is true."""
        return self.via is not Via.NOTHING

    def may(self, access: Access) -> bool:
        """Return whether a route of this access is open to them."""
        match access:
            case Access.PUBLIC:
                return True
            case Access.VIEWER:
                return self.role in {Role.VIEWER, Role.OPERATOR}
            case Access.OPERATOR:
                return self.role is Role.OPERATOR
            case Access.METRICS:
                return self.role is not None
            case Access.CRON:
                # Not with a cookie: the route answers GET, and any page of the web can make a browser follow a link.
                return self.via is Via.CRON_SECRET or (self.role is Role.OPERATOR and self.via is Via.TOKEN)


NOBODY = Principal("nobody", None, Via.NOTHING)
CRON = Principal("cron", None, Via.CRON_SECRET)
