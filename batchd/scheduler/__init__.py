"""When runs come to be: APScheduler wakes, the planner writes runs."""
