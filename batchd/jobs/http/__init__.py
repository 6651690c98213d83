"""HTTP requests that runs make: whom credentials are meant for, and what is asked again."""
