"""Files of a new project that are the same for every one."""
