"""Connections of the native protocol: framing, greeting, server side, client side, dialling."""
