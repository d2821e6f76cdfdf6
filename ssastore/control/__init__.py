"""Adapters of ``env.ControlStore``: in memory, one file served over a Unix socket, and etcd.

memory.py      clients of a store inside this process
embedded.py    server and client of a store in an LMDB file
frames.py      what those two say to each other. Pure
file.py        the LMDB file
engine.py      one store's turn-taking, waiting and lease timer, for both adapters
state.py       what a store holds and how it changes. Pure

etcd.py        client of a store in etcd
etcdlink.py    HTTP to its endpoints: failover, tokens, TLS
etcdjson.py    what its JSON gateway is asked and answers. Pure
address.py     which of the stores a setting names, and where it is. Pure
"""
