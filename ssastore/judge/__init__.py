"""What clients were told, and whether that can be true. Pure; for the simulator and for labs.

history    one call of one client, and its answer
checker    linearizability of register histories; ``versions`` is the quick check
verdicts   all keys of a load
"""
