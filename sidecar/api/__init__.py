"""The HTTP API: what load balancers, people and programs ask a node, answered from memory on its own thread.

deciding thread ──Turn──▶ Memory ──▶ routes (aiohttp, one event loop) ──▶ Door (accepts, bounds connections)
log events ─────────────▶ Feed ────▶ /events
POST ──▶ a thread for each command, with a backend of its own, in the words of `sidecar.operate`

Rules
- Nothing here is waited for by the deciding thread, the guard or a renewal: what they hand over is put into
  memory, and the API looks at it.
- ``/active`` needs no thread but its own to say no in time: it compares the end of the lease with the clock.
- The library is imported on the API's thread, and only where ``api.listen`` is given.

Not guaranteed: an answer. Where this thread hangs, a load balancer's own timeout counts as no.
"""
