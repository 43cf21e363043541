"""The instruction set: one table row per instruction; formats, decoder, assembler, disassembler and CSRs
derive from rows."""
