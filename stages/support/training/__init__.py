"""A training run that can be killed, and the weights that it begins with."""
