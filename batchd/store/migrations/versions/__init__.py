"""One module a schema version, named NNNN_what.py, with `upgrade()`. Never change one that was released."""
