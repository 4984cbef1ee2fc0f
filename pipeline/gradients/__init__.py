"""Input gradients and their signs: the losses, exact signs, unpacking, and the step along them."""
