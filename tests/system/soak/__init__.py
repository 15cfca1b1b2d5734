"""Random faults at real clusters, judged by the witness. ``./scripts/soak`` runs it.

__main__   the command line: some clusters side by side, one report
arena      one cluster under fire: rounds of bring about, inject, verify, heal, wait
nodes      what a node is made of: the sidecar's nodes, and those of its peers
faults     every fault that a node can have, each with the proof that it was there
stores     every fault that a store can have, for etcd, Consul and the embedded store
deck       which fault meets which role, and in which order
limits     how soon somebody must be active again
report     what is written down
"""
