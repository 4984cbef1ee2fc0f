"""Methods of training: each says how a step's images are perturbed and what the model is to go down.

One file a method, named as the parameter ``robust.NAME.method`` names it; ``registry.py`` is the one table.
"""
