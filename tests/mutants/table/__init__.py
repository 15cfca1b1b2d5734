"""All mutants, by the part of the program that they break."""

from tests.mutants.mutant import Mutant
from tests.mutants.table import backends, core, guard, operate, runtime, servers, surfaces

MUTANTS: tuple[Mutant, ...] = (
    *core.MUTANTS,
    *runtime.MUTANTS,
    *guard.MUTANTS,
    *servers.MUTANTS,
    *operate.MUTANTS,
    *backends.MUTANTS,
    *surfaces.MUTANTS,
)
