"""Pure rules and types: values in, value out, no I/O, no clock."""
