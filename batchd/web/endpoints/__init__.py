"""The routes: one module for each subject, found by being here; see `batchd.web`."""
