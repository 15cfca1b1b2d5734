"""The guard: the server's parent, which ends the server's process tree at the deadline.

``guard.py`` is the script that starts the guard process, ``client.py`` the sidecar's side of its
socket (with ``events``, ``follower``, ``connect``, ``proof``). All else in here is what the guard
process is made of: standard library only, and nothing imported from the rest of the sidecar.
"""
