"""The commands for sign stores, one module for each; `group` lists them."""
