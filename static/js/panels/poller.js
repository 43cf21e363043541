/**
 * Asking the lab again and again without asking too much: one question under way at a time, at most one every `everyMs`
 * while patient, at once when not. A request during a question is remembered once.
 * @param {number} everyMs
 * @param {() => Promise<void>} work must not reject
 */
export function poller(everyMs, work) {
  let busy = false;
  let stopped = false;
  let last = -Infinity;
  let timer = 0;
  /** @type {'no' | 'patient' | 'now'} */
  let again = 'no';

  async function run() {
    clearTimeout(timer);
    timer = 0;
    busy = true;
    last = performance.now();
    await work();
    busy = false;
    const next = again;
    again = 'no';
    if (next !== 'no') request(next === 'patient');
  }

  /** @param {boolean} patient wait for the interval */
  function request(patient) {
    if (stopped) return;
    if (busy) {
      if (again !== 'now') again = patient ? 'patient' : 'now';
      return;
    }
    const wait = patient ? last + everyMs - performance.now() : 0;
    if (wait <= 0) void run();
    else if (!timer) timer = window.setTimeout(() => void run(), wait);
  }

  return {
    request,
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}
