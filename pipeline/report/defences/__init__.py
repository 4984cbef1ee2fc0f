"""Defences beside what they cost, and under attacks that their training saw or did not see."""
