"""What a report is made of.

    queries ─► Answer (rows) ─► content (figures, tables, charts) ─► HTML, text, PNGs, attachments
    digest  ─────────────────►

`content.py` holds the values in between: already formatted, with the arrows decided, so that HTML, text and a person's
own template show the same.
"""
