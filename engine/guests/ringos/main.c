/* From the firmware's jump to the first process.
 *
 *      firmware -> _start -> kernel_main -> init (pid 1) -> sh (pid 2) -> "ringos$ "
 *
 * Nothing here touches more memory than it needs: a machine of 256 MiB boots as fast as one of 4. */
#include "kernel.h"

_Noreturn void kernel_main(uint64_t hart, const void *device_tree)
{
    machine_begin();
    serial_init();
    fdt_read(device_tree);
    vm_init(machine.memory_end);
    traps_init(hart);
    net_init();
    balloon_init();
    print("ringos: %d MiB of RAM, hart %d\n", (machine.memory_end - machine.memory_start) >> 20, hart);
    if (process_spawn("init", machine.arguments, NULL, true) < 0)
        panic("cannot start init");
    schedule();
    panic("the boot stack was scheduled again");
}
