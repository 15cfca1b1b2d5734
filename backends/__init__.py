"""The lock stores, one module each behind `sidecar.ports.Backend`; loaded as entry points.

`sidecar.plugins` is the registry. A plug-in of somebody else declares the same in its own packaging:

    [options.entry_points]
    aggregate_sidecar.backends =
        mystore = my_package:connect

``connect`` is a `sidecar.ports.Connect`. tests/contract says whether it keeps the clauses.
Modules here import nothing of ``sidecar`` but ``ports``, ``core``, ``documents``, ``errors`` and ``clock``.
"""
