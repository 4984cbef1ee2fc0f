"""Measurements of models that are no attack: how accurate their gradients are, and the loss around images."""
