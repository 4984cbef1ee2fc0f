"""Moving sign stores: one file, other machines, reading in place."""
