"""The shell around the core: one event queue, one deciding thread, workers for what blocks.

watcher ─┐                                   ┌─▶ lock lane     acquire, renew, release
guard ───┼─▶ queue ─▶ Shell (decides) ─ ─ ─ ─┼─▶ server lane   server.xml, guard orders
prober ──┤                                   ├─▶ desk lane     request, history
signals ─┘                                   └─▶ file lane     epoch high-water mark
"""
