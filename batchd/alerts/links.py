"""Where the dashboard shows what an alert is about, for those who read it in a mail or a chat."""

from __future__ import annotations

from urllib.parse import quote


def page_of(site: str | None, *, run_id: int | None, job: str | None, incident_id: int | None) -> str | None:
    """Return the URL of the run's page, or the job's, or the incident's; None without `[http] public_url`."""
    if site is None:
        return None
    if run_id is not None:
        return f"{site}/runs/{run_id}"
    if job is not None:
        return f"{site}/jobs/{quote(job, safe='')}"
    if incident_id is not None:
        # The list's page that begins with it, however long ago it was.
        return f"{site}/incidents?which=all&before={incident_id + 1}#incident-{incident_id}"
    return f"{site}/"
