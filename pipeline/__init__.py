"""The method: models, attacks, training, evaluation. Tensors in, tensors out; no path, no Zarr, no DVC."""
