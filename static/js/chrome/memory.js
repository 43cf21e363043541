/**
 * What a host's memory is used for: the frames that are taken, those that sharing saves and the pages that are swapped out; and
 * whether the host looks for equal pages, and promises more than it has. All of it is what the hypervisor counts, not what its
 * guests were promised; the bar is what they would take without sharing and swapping.
 */
import { h, setAttribute, setText } from '../dom.js';
import { size } from '../migrations.js';
import { figure } from './parts.js';

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
  const legend = h('p.share-legend', null, h('i', { style: { background: 'var(--disposition-hardware)' } }), app.t('memory.used'),
    h('i.waited', { style: { 'background-color': 'var(--disposition-forwarded)' } }), app.t('memory.saved'),
    h('i', { style: { background: 'var(--disposition-injected)' } }), app.t('memory.swapped'));
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
