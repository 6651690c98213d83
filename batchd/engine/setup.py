"""What of the config attempts work with: swapped as one value when the config is reloaded.

An attempt gets the setup of the moment when it was claimed, and keeps it to its end. So a reload never touches a
running job, and no attempt sees half of a config. A database that left the config, or was changed, is closed when no
attempt that began with it is in hand any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchd.db.engine import Database
from batchd.engine.attempt import Catalog
from batchd.engine.context import Surroundings
from batchd.engine.running import InHand
from batchd.jobs.contract import Kind
from batchd.mail.delivery import MailSettings


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What attempts need to know of a config.

    `resolve_params` puts the config's secrets back into a run's params, `mask` takes them out of what is stored;
    `definitions` maps each job to its hash.
    """

    kinds: Mapping[str, Kind[Any]]
    databases: Mapping[str, Database]
    resolve_params: Any
    mask: Any
    mail: MailSettings | None = None
    definitions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setup:
    """One config, ready to work with."""

    catalog: Catalog
    around: Surroundings

    def uses(self, database: Database) -> bool:
        """Return whether attempts with this setup may use that pool."""
        return any(each is database for each in self.around.databases.values())


def is_unused(database: Database, in_hand: InHand) -> bool:
    """Return whether no attempt in hand may use that pool."""
    return not any(running.setup is not None and running.setup.uses(database) for running in in_hand.all())
