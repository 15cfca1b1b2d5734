"""Mutants: edits that break one rule on purpose, each of which a test must catch.

    python -m tests.mutants [NAME…] [--jobs J] [--write]

A simulation or a test that finds nothing proves nothing; this proves that they can see. A mutant that
survives means that a test is missing: write it, or show that the edit changes nothing and take it out.

| file | holds |
|---|---|
| mutant.py | what a mutant is, and how it is made |
| table/ | all mutants, by the part of the program that they break |
| trial.py | one mutant in a copy of the tree, and the one test that has to fail there |
| page.py | docs/mutants.md |

Not covered: whether a test catches *every* way to break its rule. One edit stands for a line.
"""
