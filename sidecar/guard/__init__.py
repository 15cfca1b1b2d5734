"""The guard: the server's parent, which ends the server's process tree at the deadline.

``guard.py`` starts the guard process, ``client.py`` is the sidecar's side of its socket. What the
guard process is made of (``daemon``, ``cage``, ``keeper``, ``tree``, ``link``, ``output``, ``terms``,
``record``, ``wire``, ``kernel``) uses the standard library alone and imports nothing of the sidecar.
"""
