/**
 * What a host's memory is used for: the frames that are taken, those that sharing saves and the pages that are swapped out; and
 * whether the host looks for equal pages, and promises more than it has. All of it is what the hypervisor counts, not what its
 * guests were promised; the bar is what they would take without sharing and swapping. Of a guest: where its pages are, and what
 * its balloon should hold.
 */
import { h, setAttribute, setText } from '../dom.js';
import { size } from '../migrations.js';
import { barLegend, figure } from './parts.js';

const PAGE = 4096;
/** Whose tables name frames: see engine/hypervisor/technique.py. */
const NAMES_FRAMES = 'paravirtual';

/**
 * A setting of a host that is on or off. @param {import('../app.js').App} app @param {number} id
 * @param {'share_pages' | 'overcommit'} field @param {string} type @param {string} words @param {string} detail @param {boolean} [disabled]
 */
function setting(app, id, field, type, words, detail, disabled = false) {
  const now = () => app.store.host(id)?.[field] ?? false;
  const box = h('input', {
    type: 'checkbox', checked: now(), disabled, dataset: { action: type.replace('.', '-') },
    onchange: async () => {
      if ((await app.attempt({ type, host: id, [field]: box.checked })) === undefined) box.checked = now();
    },
  });
  return {
    element: h('label.control.check', { title: detail }, box, h('span', null, words)),
    update() { box.checked = now(); },
  };
}

/** Of the inspector of a host with a hypervisor. @param {import('../app.js').App} app @param {import('../protocol.js').Host} host */
export function hostMemory(app, host) {
  const direct = host.technique === NAMES_FRAMES;
  const settings = [
    setting(app, host.id, 'share_pages', 'host.sharing', app.t('control.share-pages'), app.t('control.share-pages.detail')),
    setting(app, host.id, 'overcommit', 'host.overcommit', app.t('control.overcommit'),
      app.t(direct ? 'control.overcommit.paravirtual' : 'control.overcommit.detail'), direct),
  ];
  const used = h('span', { style: { background: 'var(--disposition-hardware)' } });
  const saved = h('span.waited', { style: { 'background-color': 'var(--disposition-forwarded)' } });
  const swapped = h('span', { style: { background: 'var(--disposition-injected)' } });
  const track = h('div.stacked', { role: 'img' }, used, saved, swapped);
  const usedFigure = figure(app.t('figure.frames-used'));
  const savedFigure = figure(app.t('figure.frames-saved'));
  const swappedFigure = figure(app.t('figure.swapped'));
  const legend = barLegend({ colour: 'hardware', words: app.t('memory.used') }, { colour: 'forwarded', words: app.t('memory.saved'), hatched: true },
    { colour: 'injected', words: app.t('memory.swapped') });
  return {
    element: h('div.hart-shares', null, ...settings.map((each) => each.element),
      direct ? h('p.text', null, app.t('control.overcommit.paravirtual')) : null,
      track, legend, h('dl.figures', null, usedFigure.element, savedFigure.element, swappedFigure.element)),
    update() {
      for (const each of settings) each.update();
      const live = app.store.hosts.get(host.id);
      const parts = [live?.framesUsed ?? 0, live?.framesSaved ?? 0, live?.pagesSwapped ?? 0].map((pages) => pages * PAGE);
      const all = Math.max(1, parts.reduce((sum, bytes) => sum + bytes, 0)); // the whole bar
      [used, saved, swapped].forEach((part, index) => part.style.setProperty('width', `${(parts[index] / all) * 100}%`));
      const [usedText, savedText, swappedText] = parts.map((bytes) => size(app.i18n, bytes));
      const bar = app.t('memory.bar', { used: usedText, saved: savedText, whole: size(app.i18n, host.memory_mib * 2 ** 20) });
      const words = parts[2] ? app.t('memory.bar.swapped', { bar, swapped: swappedText }) : bar;
      setAttribute(track, 'aria-label', words);
      setAttribute(track, 'title', words);
      setText(usedFigure.value, usedText);
      setText(savedFigure.value, savedText);
      setText(swappedFigure.value, swappedText);
    },
  };
}

/** Of the inspector of a guest that a hypervisor gives its memory. @param {import('../app.js').App} app @param {import('../protocol.js').Guest} guest @param {string} technique */
export function guestMemory(app, guest, technique) {
  const now = () => app.store.guest(guest.id)?.balloon_mib ?? 0;
  const most = guest.memory_mib - 1;
  const value = h('output');
  const show = () => setText(value, app.t('unit.mib', { n: app.n(Number(slider.value)) }));
  const slider = h('input', {
    type: 'range', min: 0, max: most, step: 1, value: now(), dataset: { action: 'guest-balloon' }, 'aria-label': app.t('control.balloon'), oninput: show,
    onchange: async () => {
      if ((await app.attempt({ type: 'guest.balloon', guest: guest.id, balloon_mib: Number(slider.value) })) === undefined) slider.value = String(now());
      show();
    },
  });
  const present = figure(app.t('figure.frames-used'));
  const swapped = figure(app.t('figure.swapped'));
  const ballooned = figure(app.t('figure.ballooned'));
  return {
    element: h('div.hart-shares', null, technique === NAMES_FRAMES ? h('p.text', null, app.t('control.balloon.paravirtual'))
      : h('div.controls', null, h('label.control', { title: app.t('control.balloon.detail') }, h('span', null, app.t('control.balloon')), slider, value)),
    h('dl.figures', null, present.element, swapped.element, ballooned.element)),
    update() {
      if (document.activeElement !== slider) slider.value = String(now());
      show();
      const live = app.store.guests.get(guest.id);
      setText(present.value, size(app.i18n, (live?.present ?? 0) * PAGE));
      setText(swapped.value, size(app.i18n, (live?.swapped ?? 0) * PAGE));
      setText(ballooned.value, size(app.i18n, (live?.ballooned ?? 0) * PAGE));
    },
  };
}
