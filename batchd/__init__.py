"""batchd runs batch jobs against the SQL database that a team already has."""

__version__ = "0.1.0"
