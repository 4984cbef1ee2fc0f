"""The parameters: their schema, the messages about mistakes in them, and the ready-made profiles."""
