"""Hooks: programs of the operator's that are run around a change of role.

`keeper` is the process that runs one of them and ends all it has started; `errand` is the sidecar's side of
it. When which hook is run is decided in `sidecar.runtime`.
"""
