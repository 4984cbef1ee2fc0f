"""Error rates under attack, their uncertainty, and tests of masked gradients."""
