"""What a job is: the contract between a kind and the engine, the catalog of kinds, and the kinds themselves."""
