"""Adapters of ``env.ControlStore``: in memory, and one file served over a Unix socket.

memory.py      clients of a store inside this process
embedded.py    server and client of a store in an LMDB file
frames.py      what those two say to each other. Pure
file.py        the LMDB file
engine.py      one store's turn-taking, waiting and lease timer, for both adapters
state.py       what a store holds and how it changes. Pure
"""
