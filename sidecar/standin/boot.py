"""Start a module of this folder as a program: ``python -I -S boot.py server|worker ARGUMENTS``.

``-I -S`` and no ``__init__.py`` of ours: starting costs 15 ms instead of 200, and the program proper
comes compiled from ``__pycache__``, which a script never does.
"""

import sys

if __name__ == "__main__":
    here = __file__.rpartition("/")[0]
    for name, folder in (("sidecar", here.rpartition("/")[0]), ("sidecar.standin", here)):
        package = type(sys)(name)
        package.__path__ = [folder]
        sys.modules[name] = package
    program = f"sidecar.standin.{sys.argv[1]}"
    __import__(program)
    sys.exit(sys.modules[program].main(sys.argv[2:]))
