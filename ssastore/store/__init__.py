"""Adapters of ``env.Store``: ``memory.py`` for tests and simulation, ``lmdb.py`` for production.

Both write the same record format (``seal.py``, ``docs/reference/store-format.md``) and pass the same suite,
``tests/contract/test_store.py``.
"""
