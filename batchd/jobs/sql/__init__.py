"""A script of SQL statements: how it is read, executed and gone on with."""
