"""A project's files: their places, and the results of all stages and seeds."""
