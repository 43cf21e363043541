/**
 * The traps that are under way on the canvas. Each is one record of the engine's, on that record's own path; the pool is
 * bounded and reused, nothing is allocated per frame. Pure.
 */
import { pointOn, route } from './layout.js';

/**
 * @typedef {import('../records.js').TrapRecord} TrapRecord
 * @typedef {{trap: TrapRecord, route: import('./layout.js').Route | null, start: number, duration: number, slow: boolean, labelled: boolean,
 *            x: number, y: number, alive: boolean}} Particle
 */

export const CAPACITY = 2048;
/** A label must stay long enough to be read. */
const LABEL_MS = 650;

export class Particles {
  constructor() {
    /** @type {Particle[]} */
    this.pool = [];
    this.count = 0;
    /** @type {Map<number, number>} until when a guest's label is taken, ms */
    this.labels = new Map();
  }

  clear() {
    this.count = 0;
    this.labels.clear();
  }

  /**
   * @param {TrapRecord} trap
   * @param {number} start ms (the frame clock's)
   * @param {number} duration ms
   * @param {boolean} slow traps are few enough that each can be followed and its label read
   */
  add(trap, start, duration, slow) {
    if (this.count === CAPACITY) return;
    const labelled = slow && (this.labels.get(trap.guest) ?? 0) <= start;
    if (labelled) this.labels.set(trap.guest, start + Math.min(duration, LABEL_MS));
    const particle = this.pool[this.count];
    if (particle) Object.assign(particle, { trap, route: null, start, duration, slow, labelled, alive: true });
    else this.pool.push({ trap, route: null, start, duration, slow, labelled, x: 0, y: 0, alive: true });
    this.count += 1;
  }

  /**
   * Move every particle to where it is now; those that have arrived leave.
   * @param {number} now ms
   * @param {import('./layout.js').Scene} scene
   * @param {string[][]} paths level names by path id
   */
  advance(now, scene, paths) {
    let kept = 0;
    for (let i = 0; i < this.count; i += 1) {
      const particle = this.pool[i];
      const fraction = (now - particle.start) / particle.duration;
      if (fraction >= 1) continue;
      particle.route = route(scene, particle.trap.guest, particle.trap.path, paths[particle.trap.path] ?? []);
      if (particle.route && fraction >= 0) pointOn(particle.route, fraction, particle, particle.slow);
      particle.alive = particle.route !== null && fraction >= 0;
      if (kept !== i) {
        this.pool[i] = this.pool[kept];
        this.pool[kept] = particle;
      }
      kept += 1;
    }
    this.count = kept;
  }

  /**
   * The particle nearest to a world point. @param {number} x @param {number} y @param {number} reach world units
   * @returns {Particle | null}
   */
  at(x, y, reach) {
    let best = null;
    let distance = reach;
    for (let i = 0; i < this.count; i += 1) {
      const particle = this.pool[i];
      const away = Math.hypot(particle.x - x, particle.y - y);
      if (!particle.alive || away > distance) continue;
      best = particle;
      distance = away;
    }
    return best;
  }
}

/**
 * How long a trap travels, ms: nearly the whole interval at one a second, and never so short that the eye cannot follow it.
 * @param {string} speed of the lab
 */
export function travelMs(speed) {
  return speed === '1' ? 950 : 850;
}
