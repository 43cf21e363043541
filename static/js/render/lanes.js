/**
 * Migrations on the canvas: between two hosts a lane on which pages stream, as an aggregate, and over it the rounds as bars.
 * The number of dots follows the pages of the round under way; a migration that was over within a tick stays on show for a
 * while, with the figures that it came to.
 */
import { active, bars, statusLine } from '../migrations.js';

/** @typedef {import('../migrations.js').Migration} Migration */
/** @typedef {[x: number, y: number]} Point */

/** How long one that is over can be looked at, ms. */
const LINGER_MS = 2600;
const TRAVEL_MS = 1400;
const BARS = 12;
const DOT_DISTANCE = 12;
/** Of a lane below the top of hosts that stand side by side: at their titles, where nothing else is drawn. */
const TITLE = 22;
/** Of a lane over hosts that stand in its way above the highest of them. */
const OVER = 24;

export class Lanes {
  constructor() {
    /** @type {Map<number, {row: Migration, until: number}>} */
    this.shown = new Map();
  }

  /** @param {Migration} row @param {number} now ms */
  hear(row, now) {
    this.shown.set(row.guest, { row, until: now + LINGER_MS });
  }

  /** @param {Iterable<Migration>} rows what there is on joining */
  begin(rows) {
    this.shown.clear();
    for (const row of rows) if (active(row)) this.shown.set(row.guest, { row, until: 0 });
  }

  /**
   * @param {number} now ms @param {boolean} running does the lab's time pass?
   * @returns {boolean} is anything moving?
   */
  advance(now, running) {
    let moving = false;
    for (const [guest, { row, until }] of this.shown) {
      if (!active(row) && now >= until) this.shown.delete(guest);
      moving = moving || now < until || running;
    }
    return moving && this.shown.size > 0;
  }

  /**
   * @param {import('./brush.js').Brush} brush @param {import('./layout.js').Scene} scene
   * @param {number} now ms @param {boolean} still no motion, please
   */
  draw(brush, scene, now, still) {
    const hosts = scene.boxes.filter((box) => box.kind === 'host');
    for (const { row } of this.shown.values()) {
      const [from, to] = [scene.byKey.get(`host:${row.source}`), scene.byKey.get(`host:${row.target}`)];
      if (from && to) this.drawLane(brush, row, way(from, to, hosts), still ? 0 : (now % TRAVEL_MS) / TRAVEL_MS);
    }
  }

  /** @param {import('./brush.js').Brush} brush @param {Migration} row @param {Point[]} line @param {number} phase */
  drawLane(brush, row, line, phase) {
    const { context, camera, app } = brush;
    const points = line.map(([x, y]) => /** @type {Point} */ (
      [(x - camera.x) * camera.scale + camera.width / 2, (y - camera.y) * camera.scale + camera.height / 2]));
    const colour = brush.colour(row.phase === 'failed' ? '--state-failed' : '--accent');
    context.strokeStyle = colour;
    context.globalAlpha = 0.6;
    context.lineWidth = 1.5;
    context.setLineDash(row.phase === 'stopped' ? [] : [4, 5]);
    context.beginPath();
    for (const [x, y] of points) context.lineTo(x, y);
    context.stroke();
    context.setLineDash([]);
    context.globalAlpha = 1;
    context.fillStyle = colour;
    const pages = row.rounds.at(-1)?.[2] || row.rounds[0]?.[2] || 1;
    const room = Math.floor(lengthOf(points) / DOT_DISTANCE);
    const dots = Math.min(room, 2 + Math.ceil(Math.log2(pages + 1)) * 2);
    if (row.phase !== 'failed' && row.phase !== 'cancelled') {
      for (let i = 0; i < dots; i += 1) {
        const [x, y] = along(points, (phase + i / dots) % 1);
        context.fillRect(x - 2.5, y - 2.5, 5, 5);
      }
    }
    this.drawPlate(brush, statusLine(app, row), bars(row).slice(-BARS), ...along(points, 0.5), colour);
  }

  /**
   * @param {import('./brush.js').Brush} brush @param {string} text @param {{sent: number, dirtied: number}[]} rounds
   * @param {number} x @param {number} y middle of the lane @param {string} colour
   */
  drawPlate(brush, text, rounds, x, y, colour) {
    const { context } = brush;
    const letters = brush.type('text', 11, 600);
    const width = Math.max(context.measureText(text).width, rounds.length * 9) + 16;
    const height = letters * 1.6 + 30;
    const left = Math.min(Math.max(8, x - width / 2), Math.max(8, brush.camera.width - width - 8));
    const top = Math.max(8, y - height - 16);
    context.fillStyle = brush.colour('--raised');
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.beginPath();
    context.roundRect(left, top, width, height, 5);
    context.fill();
    context.stroke();
    brush.text(text, left + 8, top + letters * 1.3, width - 12, brush.colour('--ink'));
    const floor = top + height - 5;
    rounds.forEach(({ sent, dirtied }, index) => {
      context.fillStyle = colour;
      context.fillRect(left + 8 + index * 9, floor - Math.max(1, sent * 22), 4, Math.max(1, sent * 22));
      context.fillStyle = brush.colour('--state-idle');
      context.fillRect(left + 12 + index * 9, floor - dirtied * 22, 3, dirtied * 22);
    });
  }
}

/**
 * The corners of a lane: between the sides that face each other or, where another host stands between them, over the tops of all.
 * @param {import('./layout.js').Box} a @param {import('./layout.js').Box} b @param {import('./layout.js').Box[]} hosts
 * @returns {Point[]}
 */
export function way(a, b, hosts) {
  const [ax, ay, bx, by] = [a.x + a.w / 2, a.y + TITLE, b.x + b.w / 2, b.y + TITLE];
  const beside = a.x + a.w <= b.x || b.x + b.w <= a.x;
  if (!beside) return ay < by ? [[ax, a.y + a.h], [bx, b.y]] : [[ax, a.y], [bx, b.y + b.h]];
  const [left, right] = ax < bx ? [a.x + a.w, b.x] : [b.x + b.w, a.x];
  const [top, bottom] = [Math.min(ay, by), Math.max(ay, by)];
  const between = hosts.filter((box) => box !== a && box !== b && box.x < right && box.x + box.w > left && box.y < bottom && box.y + box.h > top);
  if (between.length === 0) return ax < bx ? [[left, ay], [right, by]] : [[right, ay], [left, by]];
  const over = Math.min(a.y, b.y, ...between.map((box) => box.y)) - OVER;
  return [[ax, a.y], [ax, over], [bx, over], [bx, b.y]];
}

/** @param {Point[]} points */
const lengthOf = (points) => points.slice(1).reduce((sum, [x, y], index) => sum + Math.hypot(x - points[index][0], y - points[index][1]), 0);

/** The point at a share of a lane's length. @param {Point[]} points two or more @param {number} share 0..1 @returns {Point} */
export function along(points, share) {
  let left = lengthOf(points) * share;
  for (let i = 1; i < points.length; i += 1) {
    const [[x0, y0], [x1, y1]] = [points[i - 1], points[i]];
    const length = Math.hypot(x1 - x0, y1 - y0);
    if (left <= length && length > 0) return [x0 + (x1 - x0) * (left / length), y0 + (y1 - y0) * (left / length)];
    left -= length;
  }
  return points[points.length - 1];
}
