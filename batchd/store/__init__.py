"""batchd's own tables; one public function is one transaction (or says that it takes part in one)."""
