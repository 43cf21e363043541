/** The draggable edges of palette, inspector and dock: by pointer, by arrow keys, Enter folds; sizes and folds are remembered. */
import { byId, setAttribute } from '../dom.js';

/** @typedef {'palette' | 'inspector' | 'dock'} Part */

/**
 * Sizes in CSS pixels; `direction` is the one in which the pointer makes the part larger. A small window starts with small
 * parts, so that the canvas has room.
 */
const PARTS = /** @type {const} */ ({
  palette: { axis: 'x', direction: 1, start: Math.min(212, Math.round(innerWidth * 0.17)), least: 160, most: 420 },
  inspector: { axis: 'x', direction: -1, start: Math.min(300, Math.round(innerWidth * 0.22)), least: 220, most: 520 },
  dock: { axis: 'y', direction: -1, start: Math.min(270, Math.round(innerHeight * 0.31)), least: 120, most: 700 },
});

export class Splitters {
  /** @param {import('../app.js').App} app */
  constructor(app) {
    this.app = app;
    for (const part of /** @type {Part[]} */ (Object.keys(PARTS))) {
      this.prepare(part);
      this.apply(part);
    }
    app.on('language', () => { for (const part of /** @type {Part[]} */ (Object.keys(PARTS))) this.apply(part); });
  }

  /** @param {Part} part */
  size(part) {
    const { start, least, most } = PARTS[part];
    const size = this.app.preferences.get(`size.${part}`, /** @type {number} */ (start));
    return Math.min(most, Math.max(least, size));
  }

  /** @param {Part} part */
  folded(part) {
    return this.app.preferences.get(`folded.${part}`, false);
  }

  /** @param {Part} part */
  apply(part) {
    const { most, axis } = PARTS[part];
    const folded = this.folded(part);
    const size = folded ? 0 : this.size(part);
    document.body.style.setProperty(`--${part}`, `${size}px`);
    byId(part).hidden = folded;
    const splitter = byId(`${part}-splitter`);
    setAttribute(splitter, 'role', 'separator');
    setAttribute(splitter, 'tabindex', '0');
    setAttribute(splitter, 'aria-orientation', axis === 'x' ? 'vertical' : 'horizontal');
    setAttribute(splitter, 'aria-controls', part);
    setAttribute(splitter, 'aria-valuemin', '0');
    setAttribute(splitter, 'aria-valuemax', String(most));
    setAttribute(splitter, 'aria-valuenow', String(Math.round(size)));
    setAttribute(splitter, 'aria-label', this.app.t(`splitter.${part}`));
    setAttribute(splitter, 'title', this.app.t('splitter.hint'));
    setAttribute(splitter, 'data-folded', folded ? 'true' : null);
  }

  /** @param {Part} part @param {number} size */
  resize(part, size) {
    const { least, most } = PARTS[part];
    this.app.preferences.set(`folded.${part}`, size < least / 2);
    if (size >= least / 2) this.app.preferences.set(`size.${part}`, Math.min(most, Math.max(least, size)));
    this.apply(part);
  }

  /** @param {Part} part */
  toggle(part) {
    this.app.preferences.set(`folded.${part}`, !this.folded(part));
    this.apply(part);
  }

  /** @param {Part} part */
  prepare(part) {
    const { axis, direction } = PARTS[part];
    const splitter = byId(`${part}-splitter`);
    splitter.addEventListener('pointerdown', (event) => {
      splitter.setPointerCapture(event.pointerId);
      const from = axis === 'x' ? event.clientX : event.clientY;
      const size = this.folded(part) ? 0 : this.size(part);
      /** @param {PointerEvent} move */
      const move = (move) => this.resize(part, size + ((axis === 'x' ? move.clientX : move.clientY) - from) * direction);
      splitter.addEventListener('pointermove', move);
      splitter.addEventListener('lostpointercapture', () => splitter.removeEventListener('pointermove', move), { once: true });
    });
    splitter.addEventListener('dblclick', () => this.toggle(part));
    splitter.addEventListener('keydown', (event) => {
      /** @type {Record<string, number>} */
      const steps = axis === 'x' ? { ArrowRight: 16, ArrowLeft: -16 } : { ArrowDown: 16, ArrowUp: -16 };
      const step = steps[event.key];
      if (step !== undefined) this.resize(part, (this.folded(part) ? 0 : this.size(part)) + step * direction);
      else if (event.key === 'Enter') this.toggle(part);
      else return;
      event.preventDefault();
    });
  }
}
