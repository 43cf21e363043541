/**
 * The eased camera: which part of the world is seen. Zoom is one continuous number; three ranges of it are the three levels
 * of detail. Pure.
 */

/** @typedef {{x: number, y: number, w: number, h: number}} Rect */

export const SMALLEST = 0.02;
export const LARGEST = 2.5;
/** The zoom from which a level of detail is shown, widest first. @type {[level: import('./layout.js').Level, from: number][]} */
const LEVELS = [['stack', 0.55], ['host', 0.21], ['datacenter', 0]];
/** Zooms at which a level is shown on demand: within the level's range. @type {Record<import('./layout.js').Level, {least: number, usual: number, most: number}>} */
const SHOWN = {
  stack: { least: 0.55, usual: 1, most: 1.35 }, host: { least: 0.21, usual: 0.42, most: 0.53 }, datacenter: { least: 0, usual: 0.15, most: 0.205 },
};
/** Room round what is fitted, CSS pixels. */
const MARGIN = 20;
const LOWER_MARGIN = 72;
/** Time in which the camera covers two thirds of the way, ms. */
const EASE_MS = 90;

export class Camera {
  constructor() {
    /** World point at the centre of the view, and CSS pixels per unit. */
    this.x = 0;
    this.y = 0;
    this.scale = 1;
    this.target = { x: 0, y: 0, scale: 1 };
    this.width = 1;
    this.height = 1;
    this.eased = true;
  }

  /** @returns {import('./layout.js').Level} */
  get level() {
    return /** @type {[import('./layout.js').Level, number]} */ (LEVELS.find(([, from]) => this.scale >= from))[0];
  }

  /** @param {number} x screen @returns world */
  worldX(x) {
    return (x - this.width / 2) / this.scale + this.x;
  }

  /** @param {number} y screen @returns world */
  worldY(y) {
    return (y - this.height / 2) / this.scale + this.y;
  }

  /** @param {number} dx screen @param {number} dy screen */
  pan(dx, dy) {
    this.target.x -= dx / this.target.scale;
    this.target.y -= dy / this.target.scale;
    this.x -= dx / this.scale;
    this.y -= dy / this.scale;
  }

  /**
   * Zoom so that the world point under (x, y) stays there.
   * @param {number} factor @param {number} x screen @param {number} y screen
   */
  zoomAt(factor, x, y) {
    const { target } = this;
    const scale = Math.min(LARGEST, Math.max(SMALLEST, target.scale * factor));
    const fromX = (x - this.width / 2) / target.scale + target.x;
    const fromY = (y - this.height / 2) / target.scale + target.y;
    target.x = fromX - (x - this.width / 2) / scale;
    target.y = fromY - (y - this.height / 2) / scale;
    target.scale = scale;
  }

  /** Show a rectangle of the world, above the controls at the lower edge. @param {Rect} rect @param {number} [largest] zoom */
  fit(rect, largest = 1.35) {
    if (rect.w <= 0 || rect.h <= 0) {
      Object.assign(this.target, { x: 0, y: 0, scale: 1 });
      return;
    }
    this.centre(rect, Math.min(this.scaleOf(rect), largest));
  }

  /** The zoom at which a rectangle fills the view. @param {Rect} rect */
  scaleOf(rect) {
    return Math.min((this.width - 2 * MARGIN) / rect.w, (this.height - MARGIN - LOWER_MARGIN) / rect.h);
  }

  /** @param {Rect} rect @param {number} scale */
  centre(rect, scale) {
    this.target.scale = Math.min(LARGEST, Math.max(SMALLEST, scale));
    this.target.x = rect.x + rect.w / 2;
    this.target.y = rect.y + rect.h / 2 + (LOWER_MARGIN - MARGIN) / 2 / this.target.scale;
  }

  /**
   * Show a rectangle at a level of detail: all of it if the level's zooms allow, else its middle at a zoom that suits the level.
   * @param {import('./layout.js').Level} level @param {Rect} around
   */
  showLevel(level, around) {
    const { least, usual, most } = SHOWN[level];
    const whole = this.scaleOf(around);
    this.centre(around, around.w > 0 && whole >= least ? Math.min(whole, most) : usual);
  }

  /** Be at the target at once. */
  jump() {
    Object.assign(this, { x: this.target.x, y: this.target.y, scale: this.target.scale });
  }

  /** @param {number} elapsed ms @returns {boolean} whether the camera moved */
  advance(elapsed) {
    const { target } = this;
    if (this.x === target.x && this.y === target.y && this.scale === target.scale) return false;
    const close = Math.abs(target.scale / this.scale - 1) < 0.001
      && Math.hypot(target.x - this.x, target.y - this.y) * this.scale < 0.3;
    if (close || !this.eased) {
      this.jump();
      return true;
    }
    const part = 1 - Math.exp(-elapsed / EASE_MS);
    this.scale *= (target.scale / this.scale) ** part;
    this.x += (target.x - this.x) * part;
    this.y += (target.y - this.y) * part;
    return true;
  }
}
