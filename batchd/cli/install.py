"""`batchd install --systemd`: make batchd a service of this machine, or see what that would do, or undo it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from batchd.cli import installation
from batchd.cli.installation import Action, Step
from batchd.cli.output import emit_json, json_option
from batchd.errors import NoPermission, UsageError

_ROOT = Path("/")
_WORDS = {
    Action.WRITE: "written",
    Action.REPLACE: "brought up to date",
    Action.LEAVE: "as it was",
    Action.KEEP: "KEPT: it was changed here",
    Action.REMOVE: "removed",
}
_WOULD = {
    Action.WRITE: "would be written",
    Action.REPLACE: "would be brought up to date",
    Action.LEAVE: "would stay as it is",
    Action.KEEP: "would be KEPT: it was changed here",
    Action.REMOVE: "would be removed",
}


@click.command()
@click.option("--systemd", "for_systemd", is_flag=True, help="As a service of systemd; there is no other yet.")
@click.option("--uninstall", is_flag=True, help="Stop the service and remove its units; config and state stay.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done and change nothing; needs no root.")
@json_option
def install(*, for_systemd: bool, uninstall: bool, dry_run: bool, as_json: bool) -> None:
    """Make this batchd a service of the machine: units, a user, a config folder. Starts nothing.

    \b
      batchd install --systemd --dry-run           what would it do?
      sudo batchd install --systemd                do it; again after each upgrade of batchd
      sudo batchd install --systemd --uninstall    undo it, but for config and state

    For a batchd that pip or pipx has installed for the whole machine; the Debian package does all this by itself.
    It may be run at any time again: a config is never overwritten, and a unit that somebody has changed stays as it is.
    Change units with drop-ins (`systemctl edit batchd`), and there is nothing to keep.
    """
    if not for_systemd:
        raise UsageError("say for what: batchd install --systemd", hint="add --dry-run to see first what it would do")
    installation.require_no_package()
    version = installation.systemd_version()
    program = installation.installed_program()
    if uninstall:
        steps = installation.steps_to_uninstall(_ROOT, program, version)
    else:
        installation.require_reachable(program)
        steps = installation.steps_to_install(_ROOT, program, version)
    if not dry_run:
        _do(steps, uninstall=uninstall)
    if as_json:
        emit_json({"dry_run": dry_run, "program": str(program), "files": [_as_json(step) for step in steps]})
        return
    words = _WOULD if dry_run else _WORDS
    for step in steps:
        click.echo(f"{step.file.path}  {words[step.action]}")
    _tell_of_kept(steps)
    if not dry_run:
        click.echo(_goodbye() if uninstall else _welcome(program))


def _do(steps: Sequence[Step], *, uninstall: bool) -> None:
    if os.geteuid() != 0:
        raise NoPermission("only root can make a service", hint="use sudo, or add --dry-run to see what it would do")
    applied = installation.apply_removal if uninstall else installation.apply_installation
    applied(steps, root=_ROOT, run=installation.run_command)


def _as_json(step: Step) -> dict[str, str]:
    return {"path": str(step.file.path), "action": step.action.value, "content": step.file.content}


def _tell_of_kept(steps: Sequence[Step]) -> None:
    for step in steps:
        if step.action is Action.KEEP:
            click.echo(
                f"{step.file.path} is not what batchd writes, and not what an earlier batchd wrote: somebody has "
                "changed it, so it stays. To have batchd's own, move the changes into a drop-in "
                f"(systemctl edit {step.file.path.name}), remove the file, and run this again.",
                err=True,
            )


def _welcome(program: Path) -> str:
    return f"""
batchd is a service of this machine now, and not started yet. Next:

  1  say what it shall do           sudoedit /etc/batchd/config.toml
  2  see that it is right           sudo -u batchd {program} check --connect
  3  start it, now and at boot      sudo systemctl enable --now batchd
  4  watch it                       systemctl status batchd; journalctl -fu batchd -o cat

A changed config is put in force by: sudo systemctl reload batchd
A running service takes over a new version of batchd by: sudo systemctl restart batchd
More than one: /etc/batchd/NAME.toml, then sudo systemctl enable --now batchd@NAME"""


def _goodbye() -> str:
    return """
batchd is no service of this machine any more. These stay, and are yours to remove:

  its config                        /etc/batchd
  its state and its history         /var/lib/batchd, and /var/cache/batchd
  its user, who may own files       userdel batchd"""
