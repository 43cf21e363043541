"""Differential tests: the same program on our reference machine and on Debian's QEMU must leave the same
memory.

A case (`programs.py`) is one bare-metal program in machine mode: it sets up privilege modes, page tables and
delegation, runs a random body from a seed, logs every trap from its own handlers, and at the end stores all
registers and CSRs. Both sides run the same ELF (`sides.py`); then the words that the program itself wrote are
compared (`compare.py`), so that neither side is asked anything through an interface of its own.
"""
