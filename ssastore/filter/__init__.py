"""The rule of a service's addresses, judged in the kernel: an XDP program made from the service record.

header.py        the record as constants of the program, and its map of keys       pure
kernel.py        the program compiled, loaded, attached; its maps read and written
filter.bpf.c     the program
"""
