"""Binary translation: guest code to host code (`translator`), and where the host code is kept (`cache`)."""
