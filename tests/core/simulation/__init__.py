"""A cluster in one process: the real core, and models of everything around it.

loop       time, the story of a run, the network
store      the lock store, in two flavours
host       a node's clock, guard and server tree
shell      a sidecar: what the real shell does with the core's orders
operators  commands, which may be killed half-way
checks     the properties, checked at every step
world      puts them together, breaks them, heals them
"""
