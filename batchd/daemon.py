"""The whole wiring on one page: build every part once, start in order, stop in reverse."""
