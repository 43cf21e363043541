/** A host's harts and RAM at the host level, where the stack below the guests is folded into one box. */
import { stackText, techniqueText } from '../stacks.js';
import { hardwareFigures } from './band.js';

/** @type {import('./index.js').Shape} */
export const resources = {
  kind: 'resources',
  ground(brush, box) {
    brush.rectangle(brush.colour('--band-hardware'), brush.colour('--line-strong'), { radius: 5 });
    const host = brush.app.store.host(box.host);
    const size = brush.type('text', 11.5, 600);
    const pad = 10 * Math.max(brush.camera.scale, 0.6);
    brush.text(host ? techniqueText(brush.app, host.technique) : '', brush.x + pad, brush.y + pad * 0.8 + size, brush.w - 2 * pad, brush.colour('--band-hardware-ink'));
  },
  live(brush, box) {
    const pad = 10 * Math.max(brush.camera.scale, 0.6);
    const room = brush.w - 2 * pad;
    const step = 15 * brush.size;
    let baseline = brush.y + pad * 0.8 + 11.5 * brush.size + step * 1.1;
    for (const { label, fraction, value, colour } of hardwareFigures(brush.app, box.host)) {
      if (baseline + step * 0.6 > brush.y + brush.h) return;
      brush.type('text', 11);
      brush.text(label, brush.x + pad, baseline, room / 2, brush.colour('--band-hardware-ink'));
      brush.type('code', 11);
      brush.text(value, brush.x + brush.w - pad, baseline, room / 2, brush.colour('--ink'), 'right');
      brush.bar(brush.x + pad, baseline + 5 * brush.size, room, 5 * brush.size, fraction, brush.colour(colour));
      baseline += step * 1.75;
    }
  },
  tip(app, box) {
    const host = app.store.host(box.host);
    return host ? [stackText(app, host)] : [];
  },
};
