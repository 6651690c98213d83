"""The shop's Celery."""
import os
from datetime import timedelta

from celery import Celery
from celery.schedules import crontab, schedule, solar

from shop.tasks import cleanup as sweep

app = Celery("shop", broker=os.environ["BROKER_URL"])
app.conf.timezone = 'Europe/London'
HOUR = 60 * 60

app.conf.beat_schedule = {
    # every Monday morning
    'every-monday-morning': {
        'task': "shop.tasks.add",
        'schedule': crontab(hour=7, minute=30, day_of_week=1),
        'args': (16, 16),
        "kwargs": {'name': "O'Neil", "deep": {"x": [1, None, True]}},
        "options": {'expires': 15.0, 'queue': 'fast', 'priority': 9},
    },
    "quarter-hours": {"task": "shop.tasks.poll", "schedule": crontab(minute='*/15', hour='*/3,8-17', day_of_week='thu,fri')},
    "friday-13": {"task": "shop.tasks.superstition", "schedule": crontab(0, 0, day_of_month='13', day_of_week='fri')},
    "every-30s": {"task": "shop.tasks.beat", "schedule": 30.0},
    "two-hours": {"task": "shop.tasks.index", "schedule": timedelta(hours=2), "relative": True},
    "sunset": {"task": "shop.tasks.lights", "schedule": solar('sunset', -37.81753, 144.96715)},
    "computed": {"task": PREFIX + ".x", "schedule": schedule(run_every=HOUR)},
    **EXTRA,
}
app.conf.beat_schedule["late"] = {"task": "shop.tasks.late", "schedule": crontab.from_string("5 22 * * sat-mon")}


@app.on_after_configure.connect
def setup_periodic_tasks(sender: Celery, **kwargs):
    sender.add_periodic_task(10.0, sweep.s('hello', deep=True), name='add every 10', expires=10)
    sender.add_periodic_task(crontab(minute=0, hour='22-2'), other.s())
