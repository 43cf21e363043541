"""Back ends of split drivers: devices of a paravirtual guest, which shares a page with each and needs no registers.

The other side of a ring is a guest, and a guest may be hostile, as with virtio: indices are checked where they are
used, and a ring whose indices are impossible is no longer looked at until it is connected anew. A back end acts at once,
inside the call that tells it to.
"""
