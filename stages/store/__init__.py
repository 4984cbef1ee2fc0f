"""The commands for sign stores: one module a command, `group` lists them."""
