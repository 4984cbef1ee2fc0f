"""Precompute adversarial gradients once, share them, train on them many times.

Everything is found below this name: ``gradshard.storage`` (the formats), ``gradshard.pipeline`` (the method) and
``gradshard.stages`` (the commands). In a checkout the three are links to the folders of those names.
"""
