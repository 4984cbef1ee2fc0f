"""Measurements of models other than attacks: the accuracy of their gradients, and the loss around images."""
