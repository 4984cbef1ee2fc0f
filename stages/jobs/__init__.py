"""The jobs of the commands, apart from them since they import torch, which would slow `--help`."""
