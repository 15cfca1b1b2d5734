"""``scripts/bench scale``: many clusters on one store.

`fleet` runs the nodes of many clusters in one process, `traffic` counts their requests, `workers` starts
several such processes, `measure` loads a store and takes it away, `report` prints and writes docs/scale.*.

Real: the core, the lock lane, the watcher, the publisher, the backends, the store. Left out: the guard and
its server (what is ordered is ready, and gone, at once), and a process and a deciding thread for each node.
"""
