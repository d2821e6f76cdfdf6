"""The other of the two worlds: the code that runs in production, on virtual time and a network in memory.

Shipped with the package and imported by tests only.  ``world.World`` puts the parts together:

    seeds      streams of randomness, all from one number
    clock      what a host believes the time is
    process    a program of a host: ready callbacks, paused or dead
    schedule   what runs next, and when
    loop       the event loop: no wall clock, no sockets, no threads
    traps      what would break repetition raises
    trace      the digest and the story of a run
    links      latency, bandwidth, cuts between two hosts
    sockets    the kernel's half of a connection: buffers, end, reset
    transport  asyncio's half of it
    host       a machine that can be killed, powered off, paused and started again
    network    who reaches whom, listening; ``dial`` is one attempt to connect
    routing    longest-prefix match, late at some hosts
    swarm      which faults a seed gets; ``faults`` makes them happen
"""
