"""Exports over HTTP: started by name, downloaded by a link that ends.

    POST /api/v1/exports ──► a run of csv_export ──► progress, and at its end a link, over SSE
                                     │
                                     └──► the run's result names its file and the file's version
    GET /api/v1/exports/{run_id}/file?grant=… ──► grant (links.py) ──► place (offers.py) ──► file (files.py) ──► ranges

What a request may ask for is what the config offers: a job of kind `csv_export`, or a named source with columns and
filters; no SQL comes from the network. What may be served is decided four times over: the run must be a finished
`csv_export` that was offered; its file must lie in the folder that the config names and be called as that export's
files are; the file is opened without following a link at its place; and it must be the very file, by number, size and
time of its last change, that the run has written. So a path that somebody smuggled into a row, a symbolic or hard link
put in a file's place, or another file of the same name is not served.
"""
