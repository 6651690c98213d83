"""Python schedules: Celery beat and APScheduler, from the syntax tree of their source; and APScheduler's job stores."""
