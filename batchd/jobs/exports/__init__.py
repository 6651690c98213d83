"""Rows on their way into a file: what `csv_export` is made of."""
