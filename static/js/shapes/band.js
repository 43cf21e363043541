/**
 * A band of the stack level: one privilege level of a guest or a host, in that level's colour, with what the engine says
 * about it. A kernel that runs in U mode has a dashed edge, whether it knows or not.
 */
import { UNTRAPPED_INSTRUCTIONS } from '../store.js';
import { bandKey, layersOf } from '../stacks.js';

/** @type {Record<string, string>} */
const GROUPS = {
  user: 'user', kernel: 'kernel', hypervisor: 'hypervisor', device_model: 'user', host_kernel: 'kernel', driver_domain: 'kernel', vmm: 'user', firmware: 'hardware', hardware: 'hardware',
};

/** @typedef {import('../render/brush.js').Brush} Brush */
/** @typedef {import('../render/layout.js').Box} Box */

/** A guest's own bands by how it runs (see stacks.js). @type {Record<string, Record<string, string>>} */
const GUEST_BANDS = {
  deprivileged: { user: 'band.guest_user', kernel: 'band.kernel_deprivileged' },
  translated: { user: 'band.guest_user', kernel: 'band.kernel_translated' },
  paravirtual: { user: 'band.guest_user', kernel: 'band.kernel_paravirtual' },
  virtual: { user: 'band.user_virtual', kernel: 'band.kernel_virtual' },
  native: { user: 'band.user', kernel: 'band.kernel' },
};

/** The key of a band's title. @param {import('../app.js').App} app @param {Box} box */
function titleKey(app, box) {
  const stack = layersOf(app.store.host(box.host));
  const own = GUEST_BANDS[stack.guest][box.station];
  if (own) return own;
  return bandKey(app.store.host(box.host)?.stack ?? '', box.station);
}

/** @type {import('./index.js').Shape} */
export const band = {
  kind: 'band',

  ground(brush, box, { carried }) {
    const { app } = brush;
    const group = GROUPS[box.station];
    const dashed = box.station === 'kernel' && ['deprivileged', 'translated', 'paravirtual'].includes(layersOf(app.store.host(box.host)).guest);
    brush.context.globalAlpha = carried(box) ? 0.4 : 1;
    brush.rectangle(brush.colour(`--band-${group}`), null, { radius: 5 });
    brush.context.globalAlpha *= 0.6;
    brush.rectangle(null, brush.colour(`--level-${group}`), { radius: 5, dashed });
    brush.context.globalAlpha = carried(box) ? 0.4 : 1;
    const size = brush.type('text', 11.5, box.guest ? 400 : 600);
    const pad = 10 * brush.camera.scale;
    brush.text(app.t(titleKey(app, box)), brush.x + pad, brush.y + pad * 0.8 + size, brush.w - 2 * pad, brush.colour(`--band-${group}-ink`));
    brush.context.globalAlpha = 1;
  },

  live(brush, box, { words }) {
    if (box.station === 'hardware') hardware(brush, box);
    else if (box.guest) guestBand(brush, box, words);
    else hostBand(brush, box, words);
  },

  tip(app, box) {
    const lines = [app.t(titleKey(app, box)), app.t(`${titleKey(app, box)}.tip`)];
    if (box.guest) {
      const live = app.store.guests.get(box.guest);
      if (live) lines.push(app.t('tip.rates', { rate: app.i18n.compact(live.rates.traps), virtual: app.i18n.compact(live.rates.perVirtualSecond) }));
    }
    return lines;
  },
};

/**
 * Lines below a band's title; those that do not fit are left out.
 * @param {Brush} brush @param {string} group @param {(string | null)[]} lines the first is code, the others are figures
 * @param {number} [share] of the width for figures: traps travel at the right
 */
function write(brush, group, lines, share = 0.66) {
  const pad = 10 * brush.camera.scale;
  const step = Math.max(17 * brush.camera.scale, 13.5 * brush.size);
  let baseline = brush.y + pad * 0.8 + 11.5 * brush.size + step + 1;
  const width = (brush.w - 2 * pad) * 0.98;
  lines.forEach((line, index) => {
    if (line === null || baseline > brush.y + brush.h - 4) return;
    if (index === 0) {
      brush.type('code', 11.5, 500);
      brush.text(line, brush.x + pad, baseline, width, brush.colour('--ink'));
    } else {
      brush.type('text', 11);
      brush.text(line, brush.x + pad, baseline, width * share, brush.colour(`--band-${group}-ink`));
    }
    baseline += step;
  });
}

/** @param {Brush} brush @param {Box} box @param {import('../render/words.js').Words} words */
function guestBand(brush, box, words) {
  const { app } = brush;
  const live = app.store.guests.get(box.guest);
  if (!live) return;
  const name = app.store.schema.levels[live.level]?.name ?? '';
  const here = [1, 2].includes(live.state) && (box.station === 'user') === (name === 'user');
  const at = here ? words.at(box.guest) : '';
  if (here) {
    const group = GROUPS[box.station];
    brush.context.fillStyle = brush.colour(`--level-${group}`);
    brush.context.beginPath();
    brush.context.roundRect(brush.x + 1, brush.y + 6, 3, brush.h - 12, 1.5);
    brush.context.fill();
  }
  if (box.station === 'user') {
    write(brush, 'user', [at, `${app.i18n.compact(live.rates.instructions)} ${app.t('unit.instructions')}`]);
    return;
  }
  if (live.state === 4) {
    const pad = 10 * brush.camera.scale;
    const size = brush.type('text', 11.5, 600);
    const first = brush.y + pad * 0.8 + size * 2.4;
    const step = size * 1.3;
    const lines = Math.max(1, Math.floor((brush.y + brush.h - 4 - first) / step) + 1);
    brush.wrapped(words.failure(box.guest), brush.x + pad, first, brush.w - 2 * pad, step, lines, brush.colour('--state-failed'));
    return;
  }
  const stopped = live.state === 3 ? app.t('guest.stopped', { status: live.exitStatus ?? 0 }) : null;
  const off = live.state === 0 ? app.t('guest.off') : null;
  const untrapped = app.store.untrapped(box.guest);
  const spins = live.state === 1 && untrapped >= UNTRAPPED_INSTRUCTIONS;
  write(brush, 'kernel', [
    stopped ?? off ?? (live.state === 2 && here ? app.t('state.idle') : at),
    `${app.i18n.compact(live.rates.traps)} ${app.t('unit.exits')}`,
    spins ? app.t('guest.untrapped.short', { count: app.i18n.compact(untrapped) }) : `${app.n(live.traps)} ${app.t('unit.exits-total')}`,
  ], spins ? 1 : undefined);
}

/** @param {Brush} brush @param {Box} box @param {import('../render/words.js').Words} words */
function hostBand(brush, box, words) {
  const { app } = brush;
  const group = GROUPS[box.station];
  const ink = brush.colour(`--band-${group}-ink`);
  const pad = 10 * brush.camera.scale;
  const step = Math.max(19 * brush.camera.scale, 14 * brush.size);
  let baseline = brush.y + pad * 0.8 + 11.5 * brush.size + step + 1;
  let x = brush.x + pad;
  for (const [key, rate] of words.hostFigures(box.host, box.station)) {
    const end = brush.x + brush.w - pad;
    brush.type('text', 11);
    const label = app.t(key);
    const labelWidth = brush.context.measureText(label).width;
    if (x + labelWidth + 30 > end) break;
    brush.text(label, x, baseline, end - x, ink);
    brush.type('code', 11.5, 600);
    brush.text(app.i18n.compact(rate), x + labelWidth + 8, baseline, end - x - labelWidth, brush.colour('--ink'));
    x += labelWidth + 8 + 62 * brush.size;
  }
  baseline += step;
  if (box.station === 'device_model' || baseline > brush.y + brush.h - 4) return;
  const last = words.last(box.host, box.station);
  if (!last) return;
  brush.type('text', 11);
  brush.text(last, brush.x + pad, baseline, brush.w - 2 * pad, ink);
}

/**
 * How busy a host's harts are, how full its RAM and, where it overcommits that, its swap device. @param {import('../app.js').App} app @param {number} id
 * @returns {{label: string, fraction: number, value: string, colour: string}[]}
 */
export function hardwareFigures(app, id) {
  const host = app.store.host(id);
  const live = app.store.hosts.get(id);
  if (!host) return [];
  const used = live?.memoryUsedMib ?? 0;
  const busy = live?.busy ?? 0;
  const figures = [
    {
      label: app.t('figure.harts', { harts: host.harts }), fraction: busy, value: `${Math.round(busy * 100)} %`,
      colour: busy > 0.9 ? '--disposition-forwarded' : '--accent',
    },
    {
      label: app.t('figure.ram'), fraction: used / host.memory_mib, value: `${app.n(used)} / ${app.n(host.memory_mib)} MiB`,
      colour: used > host.memory_mib ? '--disposition-forwarded' : '--disposition-hardware',
    },
  ];
  if (!host.overcommit) return figures;
  const swapped = Math.ceil(((live?.pagesSwapped ?? 0) * 4) / 1024);
  return [...figures, {
    label: app.t('figure.swap'), fraction: swapped / host.memory_mib, value: `${app.n(swapped)} / ${app.n(host.memory_mib)} MiB`,
    colour: '--disposition-forwarded',
  }];
}

/** @param {Brush} brush @param {Box} box */
function hardware(brush, box) {
  const pad = 10 * Math.max(brush.camera.scale, 0.6);
  const figures = hardwareFigures(brush.app, box.host);
  const top = pad * 0.8 + 11.5 * brush.size;
  const step = Math.min(Math.max(20 * brush.camera.scale, 15 * brush.size), (brush.h - top - 4) / figures.length);
  let baseline = brush.y + top + step;
  const valueWidth = 96 * brush.size;
  const labelWidth = 62 * brush.size;
  for (const { label, fraction, value, colour } of figures) {
    if (baseline > brush.y + brush.h - 3) return;
    brush.type('text', 11);
    brush.text(label, brush.x + pad, baseline, labelWidth, brush.colour('--band-hardware-ink'));
    const left = brush.x + pad + labelWidth + 6;
    const room = brush.w - 2 * pad - labelWidth - valueWidth - 16;
    brush.bar(left, baseline - 4 - 3 * brush.size, room, 6 * brush.size, fraction, brush.colour(colour));
    brush.type('code', 11);
    brush.text(value, brush.x + brush.w - pad, baseline, room > 10 ? valueWidth : brush.w - labelWidth - 2 * pad, brush.colour('--ink'), 'right');
    baseline += step;
  }
}
