/**
 * Who has a host's harts: its scheduler, and each guest's part with its weight, its cap and what it waited; and the controls of
 * one guest's part. The bars are measured over about the last second that ran: had a hart, waited for one.
 */
import { h, setAttribute, setText } from '../dom.js';
import { barLegend, figure } from './parts.js';

/** @typedef {import('../app.js').App} App */

/** @param {App} app @param {number} part 0..1 */
const percent = (app, part) => `${app.n(Math.round(part * 1000) / 10)} %`;

/** A guest's bar. @param {App} app @param {number} id */
function bar(app, id) {
  const ran = h('span', { style: { background: 'var(--disposition-hardware)' } });
  const stolen = h('span.waited', { style: { 'background-color': 'var(--disposition-forwarded)' } });
  const shown = h('b');
  const track = h('div.stacked', { role: 'img' }, ran, stolen);
  return {
    track,
    shown,
    /** @param {number} width vCPUs: the whole bar */
    update(width) {
      const rates = app.store.guests.get(id)?.rates;
      const [had, waited] = [rates?.ran ?? 0, rates?.stolen ?? 0];
      ran.style.setProperty('width', `${Math.min(100, (had / width) * 100)}%`);
      stolen.style.setProperty('width', `${Math.min(100, (waited / width) * 100)}%`);
      const words = app.t('shares.bar', { ran: percent(app, had), stolen: percent(app, waited) });
      setAttribute(track, 'aria-label', words);
      setAttribute(track, 'title', words);
      setText(shown, percent(app, had));
    },
  };
}

/** Of the host inspector. @param {App} app @param {import('../protocol.js').Host} host */
export function hartShares(app, host) {
  const { schedulers, stacks } = app.store.schema;
  const own = stacks[host.stack]?.scheduler ?? '';
  const wanted = () => app.store.host(host.id)?.scheduler ?? '';
  const picker = h('select', {
    dataset: { action: 'host-scheduler' }, 'aria-label': app.t('control.scheduler'),
    onchange: async () => {
      if ((await app.attempt({ type: 'host.scheduler', host: host.id, scheduler: picker.value || null })) === undefined) picker.value = wanted();
    },
  }, h('option', { value: '' }, app.t('scheduler.own', { name: app.t(`scheduler.${own}`) })),
  ...schedulers.map((id) => h('option', { value: id }, app.t(`scheduler.${id}`))));
  const explained = h('p.text');
  const rows = app.store.guestsOf(host.id).map((guest) => {
    const { track, shown, update } = bar(app, guest.id);
    const settings = h('span');
    return {
      element: h('li', { dataset: { guest: guest.id } }, h('div', null, h('span', null, guest.name, ' ', settings), shown), track),
      update() {
        const { weight, cap } = app.store.guest(guest.id) ?? guest;
        setText(settings, app.t(cap ? 'shares.weight-cap' : 'shares.weight', { weight, cap }));
        update(guest.vcpus);
      },
    };
  });
  const legend = barLegend({ colour: 'hardware', words: app.t('shares.ran') }, { colour: 'forwarded', words: app.t('shares.stolen'), hatched: true });
  return {
    element: h('div.hart-shares', null, h('label.control', null, h('span', null, app.t('control.scheduler')), picker), explained,
      rows.length ? h('ul.causes', null, ...rows.map((row) => row.element)) : '', rows.length ? legend : ''),
    update() {
      if (document.activeElement !== picker) picker.value = wanted();
      setText(explained, app.t(`scheduler.${wanted() || own}.explained`));
      for (const row of rows) row.update();
    },
  };
}

/** Of the guest inspector. @param {App} app @param {import('../protocol.js').Guest} guest */
export function shareControls(app, guest) {
  /** @param {'weight' | 'cap'} field @param {number} low @param {number} high */
  const number = (field, low, high) => {
    const now = () => String((app.store.guest(guest.id) ?? guest)[field]);
    const input = h('input', {
      type: 'number', min: low, max: high, step: 1, value: now(), dataset: { action: `guest-${field}` }, 'aria-label': app.t(`control.${field}`),
      onchange: async () => {
        const value = app.wholeNumber(input.value, low, high);
        if (value === null || (await app.attempt({ type: 'guest.share', guest: guest.id, [field]: value })) === undefined) input.value = now();
      },
    });
    return {
      element: h('label.control', { title: app.t(`control.${field}.detail`) }, h('span', null, app.t(`control.${field}`)), input,
        h('output', null, app.t(`control.${field}.unit`))),
      update: () => {
        if (document.activeElement !== input) input.value = now();
      },
    };
  };
  const weight = number('weight', 1, 65535);
  const cap = number('cap', 0, 800);
  const { track, shown, update } = bar(app, guest.id);
  const ran = figure(app.t('figure.ran'));
  const stolen = figure(app.t('figure.stolen'));
  return {
    element: h('div.hart-shares', null, h('div.controls', null, weight.element, cap.element),
      h('ul.causes', null, h('li', null, h('div', null, h('span', null, app.t('shares.now')), shown), track)),
      h('dl.figures', null, ran.element, stolen.element)),
    update() {
      weight.update();
      cap.update();
      update(guest.vcpus);
      const live = app.store.guests.get(guest.id);
      setText(ran.value, app.i18n.duration(live?.ran ?? 0));
      setText(stolen.value, app.i18n.duration(live?.stolen ?? 0));
    },
  };
}
