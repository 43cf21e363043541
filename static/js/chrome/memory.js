/**
 * What a host's memory is used for: the frames that are taken, and those that sharing saves; and whether the host looks for
 * equal pages. Both are what the hypervisor counts, not what its guests were promised; the bar is what they would be without
 * sharing.
 */
import { h, setAttribute, setText } from '../dom.js';
import { size } from '../migrations.js';
import { figure } from './parts.js';

const PAGE = 4096;

/** Of the inspector of a host with a hypervisor. @param {import('../app.js').App} app @param {import('../protocol.js').Host} host */
export function hostMemory(app, host) {
  const now = () => app.store.host(host.id)?.share_pages ?? false;
  const box = h('input', {
    type: 'checkbox', checked: host.share_pages, dataset: { action: 'host-sharing' },
    onchange: async () => {
      if ((await app.attempt({ type: 'host.sharing', host: host.id, share_pages: box.checked })) === undefined) box.checked = now();
    },
  });
  const used = h('span', { style: { background: 'var(--disposition-hardware)' } });
  const saved = h('span.waited', { style: { 'background-color': 'var(--disposition-forwarded)' } });
  const track = h('div.stacked', { role: 'img' }, used, saved);
  const usedFigure = figure(app.t('figure.frames-used'));
  const savedFigure = figure(app.t('figure.frames-saved'));
  const legend = h('p.share-legend', null, h('i', { style: { background: 'var(--disposition-hardware)' } }), app.t('memory.used'),
    h('i.waited', { style: { 'background-color': 'var(--disposition-forwarded)' } }), app.t('memory.saved'));
  return {
    element: h('div.hart-shares', null,
      h('label.control.check', { title: app.t('control.share-pages.detail') }, box, h('span', null, app.t('control.share-pages'))),
      track, legend, h('dl.figures', null, usedFigure.element, savedFigure.element)),
    update() {
      box.checked = now();
      const live = app.store.hosts.get(host.id);
      const [taken, spared] = [(live?.framesUsed ?? 0) * PAGE, (live?.framesSaved ?? 0) * PAGE];
      const whole = host.memory_mib * 2 ** 20;
      const unshared = Math.max(1, taken + spared); // the whole bar
      used.style.setProperty('width', `${(taken / unshared) * 100}%`);
      saved.style.setProperty('width', `${(spared / unshared) * 100}%`);
      const [takenText, sparedText] = [taken, spared].map((bytes) => size(app.i18n, bytes));
      const words = app.t('memory.bar', { used: takenText, saved: sparedText, whole: size(app.i18n, whole) });
      setAttribute(track, 'aria-label', words);
      setAttribute(track, 'title', words);
      setText(usedFigure.value, takenText);
      setText(savedFigure.value, sparedText);
    },
  };
}
