/** A guest: at the stack level the frame round its bands, at the host level a tile with its figures. */
import { DISPOSITION_MARKS, STATE_MARKS, shownState } from '../marks.js';
import { GUEST_STATES } from '../protocol.js';
import { drawMark } from './host.js';

/** @type {import('./index.js').Shape} */
export const guest = {
  kind: 'guest',

  ground(brush, box, { carried }) {
    const { app } = brush;
    const document = app.store.guest(box.guest);
    if (!document) return;
    brush.context.globalAlpha = carried(box) ? 0.4 : 1;
    brush.rectangle(brush.colour('--raised'), brush.colour('--line-strong'), { radius: 7 });
    if (brush.w >= 40) {
      const pad = Math.max(6, 10 * brush.camera.scale);
      const size = brush.type('text', 12.5, 600);
      const baseline = brush.y + 16 * Math.max(brush.camera.scale, 0.75) + size * 0.36;
      const left = brush.x + pad + 16 * brush.size;
      const room = brush.x + brush.w - pad - left;
      const shown = brush.fit(document.name, room);
      brush.text(document.name, left, baseline, room, brush.colour('--ink'));
      const width = brush.context.measureText(shown).width;
      brush.type('text', 11);
      const image = app.store.image(document.image);
      brush.text(image?.name ?? '', brush.x + brush.w - pad, baseline, room - width - 10, brush.colour('--dim'), 'right');
    }
    brush.context.globalAlpha = 1;
  },

  live(brush, box, { level, selected, hovered, words }) {
    const { app } = brush;
    const live = app.store.guests.get(box.guest);
    if (!live) return;
    const state = shownState(GUEST_STATES[live.state], app.store.running);
    const pad = Math.max(brush.w >= 40 ? 6 : 3, 10 * brush.camera.scale);
    const size = Math.min(11 * brush.size, brush.w - 6);
    drawMark(brush.context, STATE_MARKS[state], brush.x + pad, brush.y + 16 * Math.max(brush.camera.scale, 0.75) - size / 2, size, brush.colour(`--state-${state}`));
    if (level === 'host' && brush.w >= 60) tile(brush, box, live, words);
    if (live.state === 4 && brush.h > 60) {
      brush.rectangle(null, brush.colour('--state-failed'), { radius: 7, width: 1.5 });
    }
    if (selected(box)) brush.rectangle(null, brush.colour('--accent'), { radius: 7, width: 2 });
    else if (hovered(box)) brush.rectangle(null, brush.colour('--dim'), { radius: 7 });
  },

  tip(app, box) {
    const document = app.store.guest(box.guest);
    const live = app.store.guests.get(box.guest);
    if (!document || !live) return [];
    return [
      `${document.name} · ${app.t(`state.${shownState(GUEST_STATES[live.state], app.store.running)}`)}`,
      app.t('tip.guest', { image: app.store.image(document.image)?.name ?? document.image, memory: document.memory_mib, vcpus: document.vcpus }),
      app.t('tip.rates', { rate: app.i18n.compact(live.rates.traps), virtual: app.i18n.compact(live.rates.perVirtualSecond) }),
    ];
  },
};

/**
 * The figures of a tile: exits a second, and where they went.
 * @param {import('../render/brush.js').Brush} brush @param {import('../render/layout.js').Box} box
 * @param {import('../store.js').GuestLive} live @param {import('../render/words.js').Words} words
 */
function tile(brush, box, live, words) {
  const { app } = brush;
  const pad = Math.max(6, 10 * brush.camera.scale);
  const width = brush.w - 2 * pad;
  let y = brush.y + 36 * Math.max(brush.camera.scale, 0.75);
  const line = brush.type('code', 11) * 1.5;
  const lines = live.state === 4
    ? [words.failure(box.guest)]
    : [`${app.i18n.compact(live.rates.instructions)} ${app.t('unit.instructions')}`, `${app.i18n.compact(live.rates.traps)} ${app.t('unit.exits')}`, `${app.n(live.traps)} ${app.t('unit.exits-total')}`];
  for (const text of lines) {
    y += line;
    if (y > brush.y + brush.h - pad) return;
    brush.text(text, brush.x + pad, y, width, brush.colour(live.state === 4 ? '--state-failed' : '--soft'));
  }
  const { schema } = app.store;
  let total = 0;
  for (const flow of app.store.flows.values()) if (flow.guest === box.guest) total += flow.rate;
  y += line * 0.7;
  const size = 9 * brush.size;
  schema.dispositions.forEach((name, disposition) => {
    let rate = 0;
    for (const flow of app.store.flows.values()) if (flow.guest === box.guest && flow.disposition === disposition) rate += flow.rate;
    if (rate <= 0 || y + size > brush.y + brush.h - pad) return;
    const colour = brush.colour(`--disposition-${name}`);
    drawMark(brush.context, DISPOSITION_MARKS[name], brush.x + pad, y, size, colour);
    brush.bar(brush.x + pad + size + 6, y + size / 2 - 2, width - size - 6, 4, rate / total, colour);
    y += size + 5;
  });
}
