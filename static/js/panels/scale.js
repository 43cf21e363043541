/**
 * The timeline's window onto a lab's history: positions (steps executed) on a line of pixels, with zoom, pan and the
 * neighbours of a moment among marks. Positions are integers below 2^53. Pure.
 * @typedef {{begin: number, end: number}} Span
 * @typedef {[position: number, time: number, guest: number, kind: number, disposition: number, sequence: number]} Mark
 */

const NARROWEST = 16;

/** @param {Span} view @param {number} width px @param {number} position @returns {number} px */
export const toPixel = (view, width, position) => ((position - view.begin) / (view.end - view.begin)) * width;

/** @param {Span} view @param {number} width px @param {number} pixel @returns {number} the nearest position */
export const toPosition = (view, width, pixel) => Math.round(view.begin + (pixel / width) * (view.end - view.begin));

/** @param {Span} history @returns {Span} all of it, never empty */
export const whole = (history) => ({ begin: history.begin, end: Math.max(history.end, history.begin + NARROWEST) });

/** This share of a view may lie behind the history's end, so that a playhead at the end is seen. */
const MARGIN = 0.03;

/** Keep a view's width if possible and put it inside the history. @param {Span} view @param {Span} history @returns {Span} */
export function inside(view, history) {
  const all = whole(history);
  const width = Math.min(Math.max(view.end - view.begin, NARROWEST), (all.end - all.begin) * (1 + MARGIN));
  const begin = Math.max(Math.min(view.begin, all.end + width * MARGIN - width), all.begin);
  return { begin, end: begin + width };
}

/** @param {Span} view @param {number} factor below 1 zooms in @param {number} around stays where it is on the screen @param {Span} history */
export function zoomed(view, factor, around, history) {
  const width = Math.max(NARROWEST, (view.end - view.begin) * factor);
  const share = (around - view.begin) / (view.end - view.begin);
  return inside({ begin: around - share * width, end: around + (1 - share) * width }, history);
}

/** @param {Span} view @param {number} share of its own width @param {Span} history */
export function panned(view, share, history) {
  const by = (view.end - view.begin) * share;
  return inside({ begin: view.begin + by, end: view.end + by }, history);
}

/** Follow a moment: move the view only when it has left the window's last tenth. @param {Span} view @param {number} position @param {Span} history */
export function following(view, position, history) {
  const width = view.end - view.begin;
  if (position >= view.begin && position <= view.end - width * MARGIN * 0.5) return inside(view, history);
  return inside({ begin: position - width * 0.9, end: position + width * 0.1 }, history);
}

/** Round positions for axis labels: 1, 2 or 5 times a power of ten. @param {Span} view @param {number} count about so many @returns {number[]} */
export function ticks(view, count) {
  const rough = (view.end - view.begin) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough) ?? power * 10;
  const positions = [];
  for (let at = Math.ceil(view.begin / step) * step; at <= view.end; at += step) positions.push(at);
  return positions;
}

/**
 * The next mark after (or, going back, before) a position.
 * @param {Mark[]} marks sorted by position @param {number} position @param {1 | -1} direction @param {number | null} [guest]
 * @returns {Mark | null}
 */
export function neighbour(marks, position, direction, guest = null) {
  const wanted = marks.filter((mark) => guest === null || mark[2] === guest);
  return (direction > 0
    ? wanted.find((mark) => mark[0] > position)
    : wanted.findLast((mark) => mark[0] < position)) ?? null;
}

/** The mark nearest to a place on the screen, within `reach` px. @param {Mark[]} marks @param {Span} view @param {number} width @param {number} pixel @param {number} reach @param {number | null} guest */
export function markAt(marks, view, width, pixel, reach, guest) {
  let best = null;
  let distance = reach;
  for (const mark of marks) {
    if (guest !== null && mark[2] !== guest) continue;
    const away = Math.abs(toPixel(view, width, mark[0]) - pixel);
    if (away <= distance) {
      best = mark;
      distance = away;
    }
  }
  return best;
}
