"""The formats on disk: datasets, sign stores, checkpoints, results; reading and writing whole rows and shards."""
