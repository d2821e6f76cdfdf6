"""What a host must have for ssastore: looked at, compared with what is wanted, and how to mend it.

findings    what a look came to                                     pure
host        kernel, Python, limits, clock, name spaces              judged by pure functions of what was read
network     IPv6, AnyIP, lane steering, MTU, packet filter
disk        where the data is: file system, room, what "durable" costs
certificates  whether they fit, and how long they are valid
owners      settings that services could replace
service     control store, name in DNS, routes of a node
"""
