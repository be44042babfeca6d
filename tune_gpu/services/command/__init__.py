"""The kind `command`: any server that an argument list starts."""
