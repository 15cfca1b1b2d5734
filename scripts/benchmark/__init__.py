"""``scripts/bench``: failover, hand-over and footprint of the sidecar beside its peers.

`nodes` runs contenders in pairs, `takeover`, `planned` and `footprint` measure, `results` judges and prints.
Instants come from the witness (host CLOCK_BOOTTIME, written by the started server), never from polling.

Not measured: several machines, a network, Patroni. A table made on a busy machine says so by its load.
"""
