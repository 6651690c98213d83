"""What the pages show, made from what the store answers: words, forms, results. Templates only lay it out.

Everything that a job, a client or a person wrote is text: templates escape it, and the filters `clean` and
`clean_lines` take out characters that could turn text around or hide it.
"""
