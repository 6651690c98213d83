-- Its trigger goes with it.
DROP VIEW IF EXISTS batchd_enqueue
