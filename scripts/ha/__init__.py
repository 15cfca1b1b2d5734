"""The trial of compose/ha: each part killed in turn, the longest interruption that a client saw, the witness.

`plant` is the running set-up, `client` what talks through HAProxy all the time, `faults` what is done to it
and what each may cost, `__main__` the table. Run by ``compose/ha/try``.

Not covered: machines with kernels or clocks of their own; all containers share this one's.
"""
