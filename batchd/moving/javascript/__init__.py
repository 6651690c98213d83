"""JavaScript and TypeScript, read and never run: the calls that schedule something, and the literals in them."""
