"""Exam 4: what nobody thought of. Bytes for the codec and the agent, packets for the program, kills, restarts
and rubbish for the maps.

    python -m tests.exams.fuzz --help

Each part makes cases out of seeds and judges them. A case is a list of steps, so that what failed is kept as
a file that a person can read, is shrunk by leaving steps out, and is played again by `make test`.
"""
