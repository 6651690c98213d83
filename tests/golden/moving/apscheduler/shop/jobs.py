from zoneinfo import ZoneInfo

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from shop import reports
from shop.mail import send_digest

sched = BackgroundScheduler(timezone=ZoneInfo("Europe/London"), job_defaults={"misfire_grace_time": 60, "coalesce": False})


# Monday to Friday
@sched.scheduled_job('cron', day_of_week='0-4', hour=17, id="close-day")
def close_day():
    ...


@sched.scheduled_job("interval", minutes=10, jitter=30)
def poll():
    ...


sched.add_job(send_digest, "cron", day="2nd fri", hour=8, minute="*/20", args=["a 'b'"], kwargs={"full": True},
              misfire_grace_time=600, coalesce=True, max_instances=3)
sched.add_job(reports.monthly, CronTrigger(day="last", hour="23", minute=30, timezone="UTC"), name="month end")
sched.add_job("shop.reports:weekly", trigger=CronTrigger.from_crontab("0 6 * * 0"))
sched.add_job(lambda: None, "date", run_date="2027-01-01 09:00:00")
sched.add_job(reports.yearly, "cron", year="2026", month="1-3")
sched.add_job(reports.thirteenth, "cron", day=13, day_of_week="fri", second="*/30", minute="*", hour="*")
sched.add_job(reports.computed, trigger="cron", **WHEN)
sched.add_job(reports.at_start)
