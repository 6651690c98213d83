"""The log of the daemon's process, through all the configs that it has had."""

from __future__ import annotations

from batchd.config.load import Config
from batchd.config.settings import LogSettings
from batchd.store.log_lines import LineBuffer
from batchd.telemetry.logs import configure_logging
from batchd.telemetry.masking import Masker


class ProcessLog:
    """Follows the config, and never forgets a secret that it was told once. One thread at a time.

    `buffer` gets the lines of runs, `masker` takes all secrets out of what is stored.
    """

    def __init__(self, instance: str) -> None:
        self.buffer = LineBuffer()
        self.masker = Masker(())
        self._secrets: frozenset[str] = frozenset()
        self._settings = LogSettings()
        self._instance = instance

    def follow(self, config: Config) -> None:
        """Log as the config says, without its secrets."""
        self._settings = config.settings.log
        self.learn(config.secrets)

    def learn(self, secrets: frozenset[str]) -> None:
        """Mask these secrets too, with the next line: a run may still hold those of the config before."""
        self._secrets |= secrets
        self.masker = Masker(self._secrets)
        configure_logging(
            level=self._settings.level,
            log_format=self._settings.format,
            secrets=self._secrets,
            sink=self.buffer.add,
            instance=self._instance,
        )
