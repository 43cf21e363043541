"""One RISC-V computer: harts, memory, board, what is loaded into it and the firmware services it offers."""
