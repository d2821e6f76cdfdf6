"""The public conformance suite ceph/s3-tests against a lab of four nodes and three replicas.

``make s3tests S3TESTS=DIR``: a checkout of https://github.com/ceph/s3-tests, with its requirements installed
for the interpreter that S3TESTS_PYTHON names (``DIR/venv/bin/python`` if it is there).  The suite is not ours
and is not part of this repository.  Three lists are, one test a line:

    passes.txt      must pass
    not_yet.txt     does not, and shall
    will_not.txt    does not, with the reason after a ``#``

A test of ``passes.txt`` that fails, or one that is in no list, is an error; one that passes and should not is
told, and ``--update`` moves it.  What is in ``will_not.txt`` is run all the same.
"""
