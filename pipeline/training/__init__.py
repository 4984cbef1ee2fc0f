"""Training: one loop for static and for robust models, whose whole state is one step number and the tensors.

Which rows a step sees, in which order, whose perturbation it takes, by how much, how images are cropped and which units
dropout drops are pure functions of (seed, step), so a run that was killed and goes on from a checkpoint ends with the
same bytes, and several processes see what one would.
"""
