"""A cluster on several hosts, from its first host on: what each is told, and how further ones get to know it.

plan        what a site is, and the files of each of its hosts                              pure
tokens      what lets a further host in: once, and not for long
admitting   the first host's side of that: an authority that signs for who has a token
joining     the further host's side
"""
