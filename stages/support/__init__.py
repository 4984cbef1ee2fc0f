"""Helpers of the stages: loading, progress, Dask clusters, blocks of attacks, training runs."""
