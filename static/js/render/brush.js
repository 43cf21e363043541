/**
 * What shapes draw with: a canvas context, the camera's transform, the theme's colours, and text that fits. All measures
 * handed to the context are CSS pixels; boxes come in world units and are placed by `place`.
 * No allocation per call: `place` writes x, y, w, h on the brush itself; shortened texts are remembered.
 */

/** @typedef {import('./layout.js').Box} Box */

const REMEMBERED = 6000;

export class Brush {
  /**
   * @param {CanvasRenderingContext2D} context
   * @param {import('../app.js').App} app
   * @param {import('./camera.js').Camera} camera
   */
  constructor(context, app, camera) {
    this.context = context;
    this.app = app;
    this.camera = camera;
    this.x = 0;
    this.y = 0;
    this.w = 0;
    this.h = 0;
    /** Size of text and marks relative to zoom 1. */
    this.size = 1;
    /** @type {Map<string, string>} */
    this.fitted = new Map();
    this.font = '';
  }

  /** Text keeps a legible size at every zoom. */
  begin() {
    this.size = Math.min(1.45, Math.max(0.84, this.camera.scale));
    this.font = '';
  }

  /** Forget measured texts: the fonts have arrived, or the language has changed. */
  forget() {
    this.fitted.clear();
  }

  /** @param {string} name such as "--ink" */
  colour(name) {
    return this.app.page.colour(name);
  }

  /** Put the brush on a box, at whole pixels. @param {Box} box @returns {boolean} whether any of it can be seen */
  place(box) {
    const { camera } = this;
    const left = Math.round((box.x - camera.x) * camera.scale + camera.width / 2);
    const top = Math.round((box.y - camera.y) * camera.scale + camera.height / 2);
    this.x = left;
    this.y = top;
    this.w = Math.round((box.x + box.w - camera.x) * camera.scale + camera.width / 2) - left;
    this.h = Math.round((box.y + box.h - camera.y) * camera.scale + camera.height / 2) - top;
    return left < camera.width && top < camera.height && left + this.w > 0 && top + this.h > 0;
  }

  /**
   * A rounded rectangle where the brush is. @param {string | null} fill @param {string | null} stroke
   * @param {{radius?: number, width?: number, dashed?: boolean, inset?: number}} [style]
   */
  rectangle(fill, stroke, { radius = 6, width = 1, dashed = false, inset = 0 } = {}) {
    const { context } = this;
    const half = stroke ? 0.5 : 0;
    context.beginPath();
    context.roundRect(
      this.x + half + inset, this.y + half + inset, Math.max(1, this.w - 2 * half - 2 * inset), Math.max(1, this.h - 2 * half - 2 * inset),
      Math.min(radius * Math.max(0.5, this.size), this.w / 2, this.h / 2),
    );
    if (fill) {
      context.fillStyle = fill;
      context.fill();
    }
    if (stroke) {
      context.strokeStyle = stroke;
      context.lineWidth = width;
      if (dashed) context.setLineDash([5, 4]);
      context.stroke();
      if (dashed) context.setLineDash([]);
    }
  }

  /**
   * @param {'text' | 'code'} family @param {number} pixels at zoom 1 @param {number} [weight]
   * @returns {number} the size it really has
   */
  type(family, pixels, weight = 400) {
    const size = Math.round(pixels * this.size * 2) / 2;
    const font = `${weight} ${size}px ${this.colour(family === 'text' ? '--font-text' : '--font-code')}`;
    if (font !== this.font) {
      this.font = font;
      this.context.font = font;
    }
    return size;
  }

  /** The text, shortened to a width. @param {string} text @param {number} width */
  fit(text, width) {
    const room = Math.max(0, Math.floor(width / 4) * 4);
    const key = `${this.font}|${room}|${text}`;
    const known = this.fitted.get(key);
    if (known !== undefined) return known;
    let short = text;
    if (this.context.measureText(text).width > width) {
      let low = 0;
      let high = text.length;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (this.context.measureText(`${text.slice(0, middle)}…`).width <= width) low = middle;
        else high = middle - 1;
      }
      short = low > 0 ? `${text.slice(0, low).trimEnd()}…` : '';
    }
    if (this.fitted.size > REMEMBERED) this.fitted.clear();
    this.fitted.set(key, short);
    return short;
  }

  /**
   * Write in the current type. @param {string} text @param {number} x @param {number} baseline @param {number} width room for it
   * @param {string} colour @param {CanvasTextAlign} [align]
   */
  text(text, x, baseline, width, colour, align = 'left') {
    if (width < 10) return;
    const { context } = this;
    context.fillStyle = colour;
    context.textAlign = align;
    context.fillText(this.fit(text, width), x, baseline);
  }

  /**
   * Write over several lines, broken between words. @param {string} text @param {number} x @param {number} baseline of the first line
   * @param {number} width @param {number} step from line to line @param {number} lines at most @param {string} colour
   * @param {CanvasTextAlign} [align]
   */
  wrapped(text, x, baseline, width, step, lines, colour, align = 'left') {
    const words = text.split(' ');
    let line = '';
    let left = lines;
    for (const [index, word] of words.entries()) {
      const longer = line ? `${line} ${word}` : word;
      if (!line || left === 1 || this.context.measureText(longer).width <= width) {
        line = longer;
        continue;
      }
      this.text(line, x, baseline, width, colour, align);
      baseline += step;
      left -= 1;
      line = left === 1 ? words.slice(index).join(' ') : word;
      if (left === 1) break;
    }
    this.text(line, x, baseline, width, colour, align);
  }

  /**
   * A bar with its filled part. @param {number} x @param {number} y @param {number} width @param {number} height
   * @param {number} fraction 0..1 @param {string} colour
   */
  bar(x, y, width, height, fraction, colour) {
    if (width < 2) return;
    const { context } = this;
    context.fillStyle = this.colour('--line');
    context.beginPath();
    context.roundRect(x, y, width, height, height / 2);
    context.fill();
    const part = Math.max(0, Math.min(1, fraction)) * width;
    if (part < 1) return;
    context.fillStyle = colour;
    context.beginPath();
    context.roundRect(x, y, part, height, Math.min(height, part) / 2);
    context.fill();
  }
}
