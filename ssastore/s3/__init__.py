"""S3-lite: what plain S3 tools speak, as an SSA client.

The pure half lives here: who sent a request (``sigv4``), what its body says (``chunked``,
``checksums``), what its names and headers mean (``names``), and how answers look (``xml``,
``errors``).  None of it opens a socket or reads a clock; the HTTP shell stands on top.
"""
