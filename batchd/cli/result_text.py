"""What a run came to, for people: its plain values as lines, its lists of objects as tables."""

from __future__ import annotations

from collections.abc import Mapping

from batchd.cli.output import emit_facts, emit_table, heading
from batchd.domain.result_parts import nested_parts, plain_values


def print_result(result: Mapping[str, object]) -> None:
    """Print the result under a heading."""
    heading("Result")
    emit_facts(plain_values(result))
    for part in nested_parts(result):
        heading(part.name)
        emit_table(part.headers, part.rows)
