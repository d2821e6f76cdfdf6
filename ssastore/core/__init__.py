"""What decides and converses: pure functions, and coroutines on the injected world of ``ssastore.env``."""
