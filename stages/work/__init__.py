"""The work of the commands, apart from them since it imports torch, which would slow `--help`."""
