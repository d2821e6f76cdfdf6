"""Names of services in DNS: found by clients, written for name servers, answered in a lab.

answer.py      what the records of a name say                pure
resolve.py     asks for them, one kind after the other
zone.py        the lines that a name server is given         pure
responder.py   a small name server of one service's name
"""
