"""Benchmarks: the same load on ssastore and on its peers, in one run, round about. See README.md."""
