"""The web process: pages, sockets, the store, and the engine's workers. It never runs guest code (DESIGN.md
"Processes").
"""
