"""Moving sign stores, as one file or to other machines, and reading them in place."""
