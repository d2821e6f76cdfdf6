"""Adapters behind ``env.Routes``: a table in memory and the kernel's, by netlink."""
