"""``doctor``: looks at the machine, changes nothing, and says what to do.

Each check runs on a thread of its own with a time limit, and yields findings as it goes: one that hangs or
fails unexpectedly is a finding itself, and costs no other check anything.
"""
