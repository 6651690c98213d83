"""Charts as SVG, made here: no library, no script, no inline style.

Each function returns markup that a template puts on a page as it is. A chart's SVG stretches to its container, so it
holds no text: labels stand beside it as HTML and keep their size at every width. It is an image to a screen reader,
with a sentence for a label; the page shows the same numbers as a table.
"""
