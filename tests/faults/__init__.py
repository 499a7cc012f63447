"""Everything that can go wrong, made to go wrong: `docs/guarantees.md` lists the faults at its end, with their tests.

Each ends in the same way: what is in the database is compared with what plain Python makes of the rows that were sent.
"""
