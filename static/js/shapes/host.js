/** A host: a machine with its title, its stack, its load; at the datacenter level a tile with one mark a guest. */
import { STATE_MARKS, shownState } from '../marks.js';
import { GUEST_STATES } from '../protocol.js';
import { stackText } from '../stacks.js';

/** @type {Map<string, Path2D>} */
const marks = new Map();

/**
 * Draw a 16x16 mark. @param {CanvasRenderingContext2D} context @param {string} path @param {number} x left @param {number} y top
 * @param {number} size px @param {string} colour
 */
export function drawMark(context, path, x, y, size, colour) {
  let shape = marks.get(path);
  if (!shape) {
    shape = new Path2D(path);
    marks.set(path, shape);
  }
  context.save();
  context.translate(x, y);
  context.scale(size / 16, size / 16);
  context.fillStyle = colour;
  context.fill(shape, 'evenodd');
  context.restore();
}

/** @type {import('./index.js').Shape} */
export const host = {
  kind: 'host',

  ground(brush, box, { level }) {
    const { store } = brush.app;
    const document = store.host(box.host);
    if (!document) return;
    brush.rectangle(brush.colour('--panel'), brush.colour('--line-strong'), { radius: 9 });
    const tile = level === 'datacenter';
    const pad = tile ? Math.min(8, brush.w * 0.08) : 14 * brush.camera.scale;
    const size = brush.type('text', tile ? 12 : 13.5, 600);
    if (tile && brush.w < 46) return;
    const baseline = tile ? brush.y + pad + size : brush.y + 23 * brush.camera.scale + size * 0.36;
    const room = brush.w - 2 * pad - (tile ? 0 : 22);
    const name = brush.fit(document.name, room);
    brush.text(document.name, brush.x + pad, baseline, room, brush.colour('--ink'));
    if (tile) return;
    const nameWidth = brush.context.measureText(name).width;
    brush.type('text', 11.5);
    const left = brush.x + pad + nameWidth + 10;
    brush.text(stackText(brush.app, document), left, baseline, brush.x + brush.w - pad - 22 - left, brush.colour('--dim'));
  },

  live(brush, box, { level, selected, hovered, verdict }) {
    const { app } = brush;
    const { store } = app;
    const live = store.hosts.get(box.host);
    const document = store.host(box.host);
    if (!document) return;
    const guests = store.guestsOf(box.host);
    if (level === 'datacenter') {
      const pad = Math.min(8, brush.w * 0.08);
      const mark = Math.max(3, Math.min(9, brush.w / 9));
      const columns = Math.max(1, Math.floor((brush.w - 2 * pad) / (mark + 3)));
      const top = brush.y + (brush.w < 46 ? pad : pad + 12 * brush.size + 10);
      const bars = brush.y + brush.h - pad - 10;
      guests.forEach((guest, index) => {
        const y = top + Math.floor(index / columns) * (mark + 3);
        if (y + mark > bars - 4) return;
        const state = shownState(GUEST_STATES[store.guests.get(guest.id)?.state ?? 0], store.running);
        drawMark(brush.context, STATE_MARKS[state], brush.x + pad + (index % columns) * (mark + 3), y, mark, brush.colour(`--state-${state}`));
      });
      brush.bar(brush.x + pad, bars, brush.w - 2 * pad, 3, live?.busy ?? 0, brush.colour('--accent'));
      brush.bar(brush.x + pad, bars + 6, brush.w - 2 * pad, 3, (live?.memoryUsedMib ?? 0) / document.memory_mib, brush.colour('--disposition-hardware'));
    } else {
      const size = 11 * brush.size;
      const failed = guests.some((guest) => store.guests.get(guest.id)?.state === 4);
      const running = guests.some((guest) => [1, 2].includes(store.guests.get(guest.id)?.state ?? 0));
      const state = failed ? 'failed' : running ? shownState('running', store.running) : 'off';
      const pad = 14 * brush.camera.scale;
      drawMark(brush.context, STATE_MARKS[state], brush.x + brush.w - pad - size, brush.y + 23 * brush.camera.scale - size / 2, size, brush.colour(`--state-${state}`));
    }
    const said = verdict(box.host);
    if (said) {
      brush.rectangle(null, brush.colour(said.fits === false ? '--state-failed' : '--accent'), { radius: 9, width: 2, dashed: said.fits === null });
    } else if (selected(box)) brush.rectangle(null, brush.colour('--accent'), { radius: 9, width: 2 });
    else if (hovered(box)) brush.rectangle(null, brush.colour('--dim'), { radius: 9 });
  },

  tip(app, box) {
    const document = app.store.host(box.host);
    const live = app.store.hosts.get(box.host);
    if (!document) return [];
    return [
      document.name,
      stackText(app, document),
      app.t('tip.host', {
        harts: document.harts, used: live?.memoryUsedMib ?? 0, total: document.memory_mib, busy: Math.round((live?.busy ?? 0) * 100),
      }),
    ];
  },
};
