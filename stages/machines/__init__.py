"""Devices, their memory and speed, and Dask clusters: the machines that work runs on."""
