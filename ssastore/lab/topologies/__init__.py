"""How the hosts of a lab hang together and who tells its routers: one module for each topology."""
