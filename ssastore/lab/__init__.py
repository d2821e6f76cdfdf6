"""A whole network on one machine, without root: namespaces as hosts, a bridge, a router."""
