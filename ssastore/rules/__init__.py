"""Rules: which addresses of a service its clients may use, as a contract that the network can check.

A rule is a pure function from what a client is and wants to the identifier (IID) that it connects to, and a
check of that IID by the packet alone, without state for each client.  rules.md is the specification, and
docs/reference/rules-vectors.json has what every implementation must give.

    rule.py      what rules there are, and their text
    hashes.py    the one hash that all of them use, and the keys
    address.py   the IID that a client uses
    verdict.py   whether an IID keeps the rule
    record.py    the record that a service publishes
"""
