"""Sources in, findings out: each is read by the reader of its system; units of systemd are read together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from batchd.moving.crontab import read_crontab
from batchd.moving.detect import System, detect
from batchd.moving.found import Findings, Options, Source
from batchd.moving.javascript.schedulers import read_script
from batchd.moving.python_source.apscheduler_calls import has_jobs, read_apscheduler
from batchd.moving.python_source.celery import has_schedule, read_celery
from batchd.moving.python_source.job_store import read_job_store
from batchd.moving.ruby.whenever import ScheduleReader
from batchd.moving.systemd.timers import read_systemd
from batchd.moving.vercel import read_vercel

Reader: TypeAlias = Callable[[Source, Options, Findings], None]
JobStoreRows: TypeAlias = Callable[[str], list[tuple[str, float | None, bytes]]]


def convert(sources: Sequence[Source], options: Options, *, system: System | None, rows_of: JobStoreRows) -> Findings:
    """Return what the sources hold. `system` None: find out for each; `rows_of` reads a job store by its name.

    Raises UsageError, naming the file and line, for what cannot be read at all.
    """
    findings = Findings()
    kinds = [(source, system or detect(source)) for source in sources]
    units = [source for source, kind in kinds if kind is System.SYSTEMD]
    for source, kind in kinds:
        findings.systems[source.name] = kind.value
        if kind is System.JOB_STORE:
            read_job_store(source.name, rows_of(source.name), options, findings)
        elif kind is not System.SYSTEMD:
            _reader_of(kind)(source, options, findings)
        elif source is units[0]:
            read_systemd(units, options, findings)
    return findings.with_unique_names()


def _reader_of(system: System) -> Reader:
    readers: dict[System, Reader] = {
        System.CRONTAB: read_crontab,
        System.SYSTEM_CRONTAB: _system_crontab,
        System.WHENEVER: lambda source, options, findings: ScheduleReader(source, options, findings).read(),
        System.VERCEL: read_vercel,
        System.BULLMQ: read_script,
        System.CELERY: _celery,
        System.APSCHEDULER: _apscheduler,
    }
    return readers.get(system) or _yaml_reader(system)


def _system_crontab(source: Source, options: Options, findings: Findings) -> None:
    read_crontab(source, options, findings, with_user=True)


def _celery(source: Source, options: Options, findings: Findings) -> None:
    read_celery(source, options, findings)
    if has_jobs(source.text):
        read_apscheduler(source, options, findings)


def _apscheduler(source: Source, options: Options, findings: Findings) -> None:
    read_apscheduler(source, options, findings)
    if has_schedule(source.text):
        read_celery(source, options, findings)


def _yaml_reader(system: System) -> Reader:
    from batchd.moving.rails.active_job import read_good_job, read_recurring, schedule_of  # noqa: PLC0415 (PyYAML)
    from batchd.moving.rails.sidekiq import read_schedule, read_sidekiq  # noqa: PLC0415
    from batchd.moving.rails.yaml_nodes import Document, read_yaml  # noqa: PLC0415

    def one(source: Source, options: Options, findings: Findings) -> None:
        document: Document = read_yaml(source)
        match system:
            case System.SIDEKIQ:
                read_sidekiq(document, options, findings)
            case System.SOLID_QUEUE:
                read_recurring(document, options, findings)
            case System.GOOD_JOB:
                read_good_job(document, options, findings)
            case _:
                schedule = schedule_of(document.root, options.environment)
                scheduler = system is System.SIDEKIQ_SCHEDULER
                read_schedule(schedule, document, options, findings, scheduler=scheduler)
        document.keep_rest(findings)

    return one
