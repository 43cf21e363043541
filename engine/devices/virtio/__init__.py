"""virtio devices behind virtio-mmio (virtio 1.2, 4.2): what a guest's kernel has drivers for already.

    mmio    the transport: slots, registers, status, features, interrupts
      └─ queue   split virtqueues in the guest's memory
           └─ block, console, net, rng   one device type, one file

The other side of a queue is a guest, and a guest may be hostile. Whatever it writes: nothing outside its RAM
is touched, one notification does a bounded amount of work, and nothing but what `save` carries grows. A
device that meets a broken rule sets DEVICE_NEEDS_RESET (2.1.2) and is deaf until it is reset.

A device acts at once, inside the store that notifies it: that takes no virtual time, and there is no request
in flight that a snapshot would have to carry.
"""
