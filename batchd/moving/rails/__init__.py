"""Schedules of Rails in YAML: Sidekiq with sidekiq-cron and sidekiq-scheduler, Solid Queue, GoodJob."""
