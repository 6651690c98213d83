"""The base of every section of the config."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from batchd.jobs.params import Duration

Positive = Annotated[Duration, Field(gt=timedelta(0))]


class Section(BaseModel):
    """The base of every section: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
