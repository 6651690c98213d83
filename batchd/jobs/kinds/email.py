"""email: one message, from a template or from the words in its params; the job that others trigger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from batchd.domain.job import JsonObject
from batchd.errors import JobError
from batchd.jobs.contract import JobContext, Kind, Params
from batchd.jobs.mailing import Mailing, address_problems, composed, mail_settings, mailboxes
from batchd.jobs.params import Addresses
from batchd.jobs.templating import Templates, text_of
from batchd.mail.headers import one_line
from batchd.mail.message import Letter, message_id

_ADDRESSES = ("to", "cc", "bcc", "reply_to")
_ENDINGS = (".html", ".txt")


class EmailParams(Params):
    """One message. `to` and what it says may come with each run; the job holds what is always the same."""

    to: Addresses = Field(default_factory=list, description='Recipients: "ann@example.com", "Ann <ann@example.com>".')
    cc: Addresses = Field(default_factory=list, description="Recipients of a copy.")
    bcc: Addresses = Field(default_factory=list, description="Recipients whom no other recipient sees.")
    reply_to: Addresses = Field(default_factory=list, description="Where answers go.")
    subject: str = Field(default="", description="Subject, a Jinja2 template: `Welcome, {{ name }}`.")
    text: str | None = Field(default=None, description="The message as text, a Jinja2 template.")
    html: str | None = Field(default=None, description="The message as HTML, a Jinja2 template.")
    template: str | None = Field(
        default=None,
        description="Instead: name of `NAME.html` and/or `NAME.txt` in the folder `templates`.",
    )
    templates: Path | None = Field(default=None, description="Folder of Jinja2 templates.")
    data: dict[str, Any] = Field(
        default_factory=dict, description="Values for the templates. Whatever people typed belongs here."
    )
    dry_run: bool = Field(default=False, description="Fill in the templates and check everything, but send nothing.")


def run(params: EmailParams, context: JobContext) -> JsonObject:
    """Send the message and return who has it."""
    mailing = None if params.dry_run else Mailing(context)
    if mailing is not None and mailing.earlier is not None:
        return mailing.earlier
    letter = _letter(params, context)
    parcel = composed(letter)
    if mailing is None:
        return {"subject": letter.subject, "recipients": len(parcel.recipients), "dry_run": True}
    return mailing.post(parcel, {"subject": letter.subject})


def _letter(params: EmailParams, context: JobContext) -> Letter:
    sender = mail_settings(context.job, context.mail).sender
    text, html = _content(params)
    subject = one_line(Templates(None).fill("subject", params.subject, params.data))
    if not subject:
        raise JobError("the mail has no subject", hint="set `subject`", retryable=False)
    to, cc, bcc, reply_to = (mailboxes(key, getattr(params, key)) for key in _ADDRESSES)
    return Letter(
        sender=sender,
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=reply_to,
        subject=subject,
        text=text,
        html=html,
        message_id=message_id(context.store_id, context.run_id, sender.domain),
        date=context.now(),
    )


def _content(params: EmailParams) -> tuple[str, str | None]:
    """Return the text and the HTML; the text is made from the HTML where nobody wrote one."""
    templates = Templates(params.templates)
    values = params.data
    text = None if params.text is None else templates.fill("text", params.text, values)
    html = None if params.html is None else templates.fill_html("html", params.html, values)
    if params.template is not None:
        found = [f"{params.template}{end}" for end in _ENDINGS if templates.has(f"{params.template}{end}")]
        if not found:
            raise JobError(
                f"template: {_missing(params.template, params.templates) or 'there is none of that name'}",
                hint="set `templates` to the folder, `template` to the name without its ending",
                retryable=False,
            )
        for name in found:
            if name.endswith(".html"):
                html = templates.render(name, values)
            else:
                text = templates.render(name, values)
    if text is None and html is None:
        raise JobError("the mail says nothing", hint="set `text`, `html` or `template`", retryable=False)
    return text if text is not None else text_of(html or ""), html


def _missing(template: str, folder: Path | None) -> str | None:
    """Return what is wrong when there is no such file; those under batchd/ come with batchd."""
    if template.startswith("batchd/"):
        return None
    if folder is None:
        return "say with `templates` which folder it is in"
    is_inside = ".." not in Path(template).parts and not Path(template).is_absolute()
    if is_inside and any((folder / f"{template}{end}").is_file() for end in _ENDINGS):
        return None
    return f"there is neither {template}.html nor {template}.txt in {folder}"


def _check(params: EmailParams) -> Sequence[tuple[str, str]]:
    found = [problem for key in _ADDRESSES for problem in address_problems(key, getattr(params, key))]
    if params.templates is not None and not params.templates.is_dir():
        found.append(("templates", f"there is no folder {params.templates}"))
    elif params.template is not None and (missing := _missing(params.template, params.templates)):
        found.append(("template", missing))
    if params.template is not None and (params.text is not None or params.html is not None):
        found.append(("template", "set either `template`, or `text` and `html`"))
    return found


KIND = Kind(
    name="email",
    summary="Sends one message, from a template or from its params; for other jobs and people to trigger.",
    params=EmailParams,
    run=run,
    example="""\
[mail]
folder = "mail"                          # .eml files; or a server: host = "smtp.example.com", user = …, password = …
from = "Shop <shop@example.com>"

[jobs.send-email]
kind = "email"                           # no schedule: it runs when it is triggered
subject = "Welcome, {{ name }}"
text = "Dear {{ name }},\\nyour account is ready."

# batchd trigger send-email -p to=ann@example.com -p 'data={"name": "Ann"}'
""",
    databases=lambda _: (),
    defaults={
        "timeout": "15m",
        "retry": {"max_attempts": 10, "delay": "30s", "max_delay": "1h"},
    },
    check=_check,
    needs_mail=lambda _: True,
)
