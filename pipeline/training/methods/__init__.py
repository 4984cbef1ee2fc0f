"""Methods of training: each says how a step's images are perturbed and which loss is minimised.

There is one file per method, named like its value of the parameter ``robust.NAME.method``; ``registry.py`` is the one
table.
"""
