/**
 * The page's only animation frame. In a frame all updates run before all draws, so that nothing draws half a change;
 * no frame is asked for when nothing changed.
 */

/**
 * @typedef {(now: number, elapsed: number) => boolean} Update  ms; true: something is still moving, call again next frame
 * @typedef {() => void} Draw  looks at its own dirty flags
 */

export class Scheduler {
  /** @param {(callback: (now: number) => void) => unknown} request such as requestAnimationFrame */
  constructor(request) {
    this.request = request;
    /** @type {Update[]} */
    this.updates = [];
    /** @type {Draw[]} */
    this.draws = [];
    this.pending = false;
    this.last = 0;
    this.frame = this.frame.bind(this);
  }

  /** @param {Update} update */
  onUpdate(update) {
    this.updates.push(update);
  }

  /** @param {Draw} draw */
  onDraw(draw) {
    this.draws.push(draw);
  }

  /** Something changed: there will be a frame. */
  invalidate() {
    if (this.pending) return;
    this.pending = true;
    this.request(this.frame);
  }

  /** @param {number} now ms */
  frame(now) {
    this.pending = false;
    const elapsed = Math.min(now - this.last, 100);
    this.last = now;
    let moving = false;
    for (const update of this.updates) moving = update(now, elapsed) || moving;
    for (const draw of this.draws) draw();
    if (moving) this.invalidate();
  }
}
