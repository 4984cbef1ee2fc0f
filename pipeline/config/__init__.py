"""The parameters: their schema, what is told of mistakes in them, and the ready-made profiles."""
