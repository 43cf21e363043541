"""What a Linux machine starts from, made out of a distribution's own files: packages read, drivers found, an
initial RAM disk written.

Nothing here runs a program or opens a file: bytes come in, bytes go out. Who fetches them is webapp.debian.
"""
