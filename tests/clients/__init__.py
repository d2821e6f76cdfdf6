"""Programs that use an S3 library as its users do, told where the store is by the AWS variables alone.

Each is run as a process by ``tests/lab/test_clients.py``, and fails when anything is not as its library says.
"""
