"""What a person types: one file per group of commands, each imported only when its command runs.

Data goes to stdout, everything said about it to stderr. An error is one message with a hint, never a traceback; the
exit code is the error's own (`batchd.errors.ExitCode`).
"""
