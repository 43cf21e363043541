"""The native tiers: table rows and procedures as LLVM code."""
