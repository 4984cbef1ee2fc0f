"""Training: one loop for static and for robust models, whose whole state is one step number and tensors.

The rows that a step sees, their order, who perturbs them and by how much, how images are cropped and which units
dropout drops are pure functions of (seed, step). So a run that was killed and resumes from a checkpoint ends with the
same bytes, and several processes see what a single one would.
"""
