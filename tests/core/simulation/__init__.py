"""Whole clusters in one thread: the real core, runtime and commands, and models of everything around them.

loop       time, the story of a run, the network
clock      each host's own
threads    processes and their threads, which can be frozen and killed
stage      puts these in the place of ``threading`` and the like, in the program's own modules
store      the lock store, in two flavours;  client: a backend of it over a bad network
host       a node's guard and server tree;  guarding: the guard's client
node       a sidecar's process
commands   operators' processes;  facts: whether what they said was true
checks     the other properties, checked at every step
faults     what goes wrong
world      puts them together, lets them suffer, heals them
shrink     makes a failing schedule short;  matrix: which states have met which observations
"""
