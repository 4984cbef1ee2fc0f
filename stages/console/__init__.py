"""Options and paths of a command line, progress, and tables as commands write them."""
