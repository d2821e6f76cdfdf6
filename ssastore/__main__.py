"""``python -m ssastore``."""

from ssastore.cli import main

main()
