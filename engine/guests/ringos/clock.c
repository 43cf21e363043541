/* Time: slices of 100 microseconds for those who share the hart, and the end of each sleep().
 *
 * The timer is set only when somebody needs it, and only to be earlier than it already is: an
 * interrupt that comes too early finds nothing to do and sets the timer anew. */
#include "kernel.h"

#define SLICES_PER_SECOND 10000

static uint64_t armed = NEVER;     /* when the timer will interrupt */
static uint64_t slice_end = NEVER; /* of the current process, if somebody waits for the hart */
static bool stale;                 /* who runs or sleeps has changed since the timer was last set */
static bool fired;                 /* the interrupt is pending until the timer is set again */

uint64_t clock_now(void)
{
    return time_now();
}

void clock_stale(void)
{
    stale = true;
}

void clock_new_slice(void)
{
    slice_end = NEVER;
    stale = true;
}

void clock_arm(void)
{
    if (!stale)
        return;
    stale = false;
    uint64_t deadline = processes_next_wake();
    if (process_others_runnable()) {
        if (slice_end == NEVER)
            slice_end = clock_now() + machine.timebase_hz / SLICES_PER_SECOND;
        if (slice_end < deadline)
            deadline = slice_end;
    }
    if (fired || deadline < armed) {
        armed = deadline;
        fired = false;
        timer_set(armed);
    }
}

void clock_interrupt(void)
{
    uint64_t now = clock_now();
    armed = NEVER;
    fired = stale = true;
    processes_wake_at(now);
    if (now >= slice_end)
        schedule();
}
