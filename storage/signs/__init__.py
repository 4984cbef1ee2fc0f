"""The sign store: its format, building, reading and checking."""
