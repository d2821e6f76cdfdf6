"""Packets to a service sorted by the rule of its addresses: rejected in XDP, queued by tc.

classes.py       which class a packet is of, and why: the model                    pure
orders.py        what others have found, as prefixes with a reason and an end      pure
header.py        the record as constants of the program, and what it is told       pure
queues.py        HTB behind the filter, by tc(8)
kernel.py        the programs compiled, loaded, attached; their maps read and written
place.py         the interfaces, which may be made anew
desk.py          where a running filter takes orders
bpf.py tools.py  bpf(2); clang, bpftool and tc
filter.bpf.c     the programs; judge.bpf.h the rule, packet.bpf.h the headers
"""
