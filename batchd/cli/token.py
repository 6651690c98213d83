"""`batchd token`: who may use the HTTP surface."""

from __future__ import annotations

import re
from datetime import timedelta

import click

from batchd.cli.output import emit_json, emit_table, json_option, say
from batchd.cli.person import person
from batchd.cli.session import STORE, config_option, open_config, open_store
from batchd.cli.text import moment
from batchd.cli.types import Duration
from batchd.domain.access import Role
from batchd.errors import UsageError
from batchd.store import tokens
from batchd.store.audit import Actor

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


@click.group()
def token() -> None:
    """Make, list and revoke the tokens of the HTTP surface. A token is shown once, when it is made; a hash is kept.

    \b
      batchd token create ann --role operator
      batchd token create prometheus --role metrics --expires 365d
      batchd token list
      batchd token revoke ann

    Roles: `metrics` reads /metrics and nothing else, `viewer` reads everything, `operator` also triggers, pauses,
    cancels and retries. Whoever has a token signs in at /login with it, or sends `Authorization: Bearer TOKEN`.
    """


@token.command()
@config_option
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="What the token allows.")
@click.option(
    "--expires", type=Duration(), metavar="DURATION", help="For how long it works: 90d. Without end if unset."
)
@json_option
def create(config_file: str | None, name: str, *, role: str, expires: timedelta | None, as_json: bool) -> None:
    """Make a token and print it, this once.

    \b
      batchd token create ann --role operator
      batchd token create prometheus --role metrics > /etc/prometheus/batchd.token
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a token", hint="up to 64 letters, digits, dots, dashes, underscores and @"
        )
    if expires is not None and expires <= timedelta(0):
        raise UsageError("--expires must be more than 0")
    with open_store(open_config(config_file, secrets=STORE)) as store:
        made = tokens.create(store, name, Role(role), valid_for=expires, by=Actor(person(), "cli"))
    if as_json:
        emit_json({"id": made.id, "name": name, "role": role, "token": made.text})
        return
    click.echo(made.text)
    say(f"{name} may use the HTTP surface as {role}; keep the token, it is not shown again")


@token.command(name="list")
@config_option
@json_option
def list_tokens(config_file: str | None, *, as_json: bool) -> None:
    """List the tokens: who they are for, what they allow, when they were last used.

    \b
      batchd token list
      batchd token list --json | jq -r '.tokens[] | select(.revoked_at == null).name'
    """
    with open_store(open_config(config_file, secrets=STORE)) as store:
        found = tokens.listed(store)
    if as_json:
        emit_json({"tokens": found})
        return
    rows = [
        (
            each.name,
            each.role,
            each.id,
            *map(moment, (each.created_at, each.expires_at, each.last_used_at, each.revoked_at)),
        )
        for each in found
    ]
    if rows:
        emit_table(("name", "role", "id", "made", "expires", "last used", "revoked"), rows)
    else:
        say("there is no token yet: batchd token create NAME --role operator")


@token.command()
@config_option
@click.argument("name", metavar="NAME|ID")
@json_option
def revoke(config_file: str | None, name: str, *, as_json: bool) -> None:
    """End a token, and every browser session that began with it, within two seconds.

    \b
      batchd token revoke ann
    """
    with open_store(open_config(config_file, secrets=STORE)) as store:
        revoked = tokens.revoke(store, name, by=Actor(person(), "cli"))
    if as_json:
        emit_json({"name": revoked, "revoked": True})
    else:
        click.echo(f"{revoked} is revoked")
