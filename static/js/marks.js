/**
 * Marks that go with a colour, so that colour never speaks alone: one shape for each disposition and for each state of a guest.
 * As paths in a 16x16 view they serve canvas (Path2D) and DOM (svg) alike. Rows are named by the trace's schema and by
 * GUEST_STATES; a disposition without a row here fails a test.
 */

/** @type {Record<string, string>} */
export const DISPOSITION_MARKS = {
  hardware: 'M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2Z',
  emulated: 'M3 3h10v10H3Z',
  forwarded: 'M8 2l6.5 11.5h-13Z',
  injected: 'M8 1l7 7-7 7-7-7Z',
  killed: 'M3.8 1.5 8 5.7l4.2-4.2 2.3 2.3L10.3 8l4.2 4.2-2.3 2.3L8 10.3l-4.2 4.2-2.3-2.3L5.7 8 1.5 3.8Z',
};

/** `paused` is the whole lab's state, shown for a guest that would run. @type {Record<string, string>} */
export const STATE_MARKS = {
  off: 'M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2Zm0 2a4 4 0 1 1 0 8 4 4 0 0 1 0-8Z',
  running: 'M4 2l10 6-10 6Z',
  idle: 'M7 2a6 6 0 1 0 7 8A6 6 0 0 1 7 2Z',
  paused: 'M4 2h3v12H4Zm5 0h3v12H9Z',
  stopped: 'M3 3h10v10H3Z',
  failed: 'M8 1l7.5 13.5H.5Zm-.9 4.5v4.6h1.8V5.5Zm0 5.8V13h1.8v-1.7Z',
};

/**
 * The state to show for a guest. @param {string} state one of GUEST_STATES @param {boolean} running the lab's
 */
export function shownState(state, running) {
  return !running && (state === 'running' || state === 'idle') ? 'paused' : state;
}
