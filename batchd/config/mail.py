"""`[mail]`: from the section to the settings that the mail room knows."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from batchd.config.problems import Problems
from batchd.config.settings import MailSection
from batchd.config.substitution import Substitution
from batchd.mail.addresses import AddressInvalid, Mailbox, parse_mailbox
from batchd.mail.delivery import MailSettings, Security

_PORTS = {Security.STARTTLS: 587, Security.TLS: 465, Security.NONE: 25}
_NOBODY = Mailbox("", "nobody", "localhost")


def read_mail(
    section: MailSection | None, folder: Path, outside: Substitution, problems: Problems
) -> MailSettings | None:
    """Return the settings, or None without a section; what is wrong becomes problems."""
    if section is None:
        return None
    if (section.host is None) == (section.folder is None):
        problems.add(("mail",), "set either `host` (a mail server) or `folder` (write the messages there)")
    sender = _NOBODY
    try:
        sender = parse_mailbox(section.sender)
    except AddressInvalid as error:
        problems.add(("mail", "from"), str(error))
    password = _password(section, outside, problems)
    if section.user is not None and section.security is Security.NONE and not _is_this_machine(section.host or ""):
        problems.add(("mail", "security"), 'the password would travel unprotected; write "starttls" or "tls"')
    ca_file = folder / Path(section.ca_file).expanduser() if section.ca_file else None
    if ca_file is not None and not ca_file.is_file():
        problems.add(("mail", "ca_file"), f"there is no file {ca_file}")
    return MailSettings(
        sender=sender,
        host=section.host,
        port=section.port or _PORTS[section.security],
        security=section.security,
        user=section.user,
        password=password,
        timeout=section.timeout,
        ca_file=ca_file,
        folder=folder / Path(section.folder).expanduser() if section.folder else None,
    )


def _password(section: MailSection, outside: Substitution, problems: Problems) -> str | None:
    password = section.password.get_secret_value() if section.password is not None else None
    if section.password_file is not None:
        if password is not None:
            problems.add(("mail", "password_file"), "set either `password` or `password_file`, not both")
        password = outside.file_content(section.password_file, ("mail", "password_file"))
    if (password is None and section.password_file is None) != (section.user is None):
        problems.add(("mail", "user"), "`user` and `password` (or `password_file`) belong together")
    if password is not None:
        outside.keep_secret(password)
    return password


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
